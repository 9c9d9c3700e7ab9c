"""From a study file's [sampler], [pruner] and [space] to Optuna's objects."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler

from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.model.spec import (
    Choice,
    Constant,
    IntegerRange,
    Parameter,
    PrunerSpec,
    RealRange,
    SamplerSpec,
    SpaceSpec,
    StudySpec,
)

T = TypeVar("T")

TRIES = 3  # trials without training, to try the options

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler}
PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "median": MedianPruner,
    "hyperband": HyperbandPruner,
    "halving": SuccessiveHalvingPruner,
    "none": NopPruner,
}


def make_sampler(spec: SamplerSpec, seed: int, fixed: Mapping[str, Any] | None = None) -> BaseSampler:
    """Optuna's sampler for one place. With `fixed` it gives those parameters again, for a later attempt.

    Raises:
        StudyFileError: Optuna's class does not take the options.
    """
    if fixed is not None:
        options = {"fixed_params": dict(fixed), "base_sampler": RandomSampler(seed=seed)}
        return _build("sampler", PartialFixedSampler, options)
    return _build("sampler", SAMPLERS[spec.kind], dict(spec.options) | {"seed": seed})


def make_pruner(spec: PrunerSpec, epochs: int) -> BasePruner:
    """Optuna's pruner. Hyperband gets the number of epochs; it would otherwise guess it from the first trial.

    Raises:
        StudyFileError: Optuna's class does not take the options.
    """
    options = dict(spec.options)
    if spec.kind == "hyperband":
        options.setdefault("max_resource", epochs)
    return _build("pruner", PRUNERS[spec.kind], options)


def _build(section: str, factory: Callable[..., T], options: dict[str, Any]) -> T:
    try:
        with warnings.catch_warnings():
            # The study file chose the options. Optuna's documentation says which are experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return factory(**options)
    except (TypeError, ValueError) as error:
        raise StudyFileError("the study", _option_lines(section, factory, options, error)) from None


def _option_lines(section: str, factory: Callable[..., Any], options: dict[str, Any], error: Exception) -> list[str]:
    """A line for each option that Optuna's class does not know; else its own objection to a value."""
    known = [name for name in inspect.signature(factory).parameters if name != "seed"]
    unknown = [name for name in options if name not in known and name != "seed"]
    if not unknown:
        return [f"{section}: {error}"]
    known += ["audit"] if section == "pruner" else []  # ours, and no option of Optuna's
    return [f"{section}.{name}: unknown key; {_meant(name, known)}" for name in unknown]


def _meant(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"Optuna's class takes {', '.join(known)}" if known else "this kind takes no options"


def option_mistakes(spec: StudySpec) -> list[str]:
    """A line for each option of the sampler and pruner that Optuna would refuse, at once or later."""
    mistakes = []
    for section, build, use in (
        ("sampler", lambda: make_sampler(_at_once(spec.sampler), seed=0), _try_sampler),
        ("pruner", lambda: make_pruner(spec.pruner, spec.trial_epochs), _try_pruner),
    ):
        try:
            use(build(), spec)
        except StudyFileError as error:
            mistakes += error.mistakes
        except Exception as error:  # an objection that Optuna makes only in use
            mistakes.append(f"{section}: Optuna refuses the options in use: {str(error) or type(error).__name__}")
    return mistakes


def _at_once(spec: SamplerSpec) -> SamplerSpec:
    """The same with only one random trial, so that the options are used."""
    given = spec.options.get("n_startup_trials", 1)
    usual = spec.kind == "tpe" and isinstance(given, int) and given > 0
    return spec.model_copy(update={"n_startup_trials": 1}) if usual else spec


def _try_sampler(sampler: Any, spec: StudySpec) -> None:
    study = study_of_nothing(sampler=sampler)
    for number in range(TRIES):
        trial = study.ask()
        suggest(trial, spec.space)
        study.tell(trial, 1.0 / (number + 1))


def _try_pruner(pruner: Any, spec: StudySpec) -> None:
    """Report at powers of 3 and at the last epoch: the rungs are there."""
    study = study_of_nothing(pruner=pruner)
    last = spec.trial_epochs - 1
    steps = sorted({min(3**power - 1, last) for power in range(12)} | {last})
    for number in range(TRIES):
        trial = study.ask()
        for step in steps:
            trial.report(1.0 / (number + 1), step)
            trial.should_prune()
        study.tell(trial, 1.0 / (number + 1))


def study_of_nothing(**options: Any) -> optuna.Study:
    """A study in memory, of which nobody is told."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce itself
    try:
        return optuna.create_study(**options)
    finally:
        optuna.logging.set_verbosity(level)


def idle_options(spec: StudySpec) -> list[str]:
    """A line for each option that can never act in a study of so many epochs and trials."""
    last, pruner, sampler = spec.trial_epochs - 1, spec.pruner.options, spec.sampler.options
    late = {"halving": "min_resource", "hyperband": "min_resource", "median": "n_warmup_steps"}.get(spec.pruner.kind)
    lines = []
    if late is not None and _number(pruner.get(late)) > last:
        lines.append(
            f"pruner.{late} is {pruner[late]}, but the last of {last + 1} epochs is step {last}; no trial is pruned"
        )
    for section, options in (("pruner", pruner), ("sampler", sampler)):
        first = _number(options.get("n_startup_trials"))
        if first >= spec.trials:
            what = "no trial is ever pruned" if section == "pruner" else "all of them are drawn at random"
            lines.append(f"{section}.n_startup_trials is {first:.0f} of {spec.trials} trials: {what}")
    return lines


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else -1.0


def distribution(parameter: Parameter) -> BaseDistribution:
    """Optuna's distribution. A constant becomes a range of one point: the dashboard shows it, and it can widen."""
    match parameter:
        case RealRange(low=low, high=high, log=log):
            return FloatDistribution(low, high, log=log)
        case IntegerRange(low=low, high=high, log=log):
            return IntDistribution(low, high, log=log)
        case Choice(values=values):
            return CategoricalDistribution(values)
        case Constant(value=int() as value):
            return IntDistribution(value, value)
        case Constant(value=value):
            return FloatDistribution(value, value)
    raise TypeError(f"no distribution for {parameter!r}")


def suggest(trial: optuna.Trial, space: SpaceSpec | None) -> dict[str, float | int]:
    """Ask the trial for every parameter of the space. Empty for a head without parameters.

    A choice of integers comes back as integers, in spite of the database's own types.
    """
    chosen: dict[str, float | int] = {}
    for name, parameter in space.items() if space else ():
        match distribution(parameter):
            case FloatDistribution(low=low, high=high, log=log):
                chosen[name] = trial.suggest_float(name, low, high, log=log)
            case IntDistribution(low=low, high=high, log=log):
                chosen[name] = trial.suggest_int(name, low, high, log=log)
            case CategoricalDistribution(choices=choices):
                number = int if isinstance(choices[0], int) else float  # all are of their parameter's type
                chosen[name] = number(trial.suggest_categorical(name, choices))  # type: ignore[arg-type]
    return chosen
