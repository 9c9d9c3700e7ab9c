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

from studies.errors import StudyFileError
from studies.spec import Choice, Constant, IntegerRange, Parameter, PrunerSpec, RealRange, SamplerSpec, SpaceSpec

T = TypeVar("T")

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler}
PRUNERS: dict[str, Callable[..., BasePruner]] = {
    "median": MedianPruner,
    "hyperband": HyperbandPruner,
    "halving": SuccessiveHalvingPruner,
    "none": NopPruner,
}


def make_sampler(spec: SamplerSpec, seed: int, fixed: Mapping[str, Any] | None = None) -> BaseSampler:
    """Optuna's sampler for one place, or one that gives `fixed` again for a later attempt.

    Raises:
        StudyFileError: Optuna's class does not take the options.
    """
    if fixed is not None:
        options = {"fixed_params": dict(fixed), "base_sampler": RandomSampler(seed=seed)}
        return _build("sampler", PartialFixedSampler, options)
    return _build("sampler", SAMPLERS[spec.kind], dict(spec.options) | {"seed": seed})


def make_pruner(spec: PrunerSpec, epochs: int) -> BasePruner:
    """Optuna's pruner; Hyperband is told the number of epochs, which it would otherwise guess from the first trial.

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
            # The options were chosen in the study file; that some are experimental is said in Optuna's documentation.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return factory(**options)
    except (TypeError, ValueError) as error:
        raise StudyFileError("the study", _option_lines(section, factory, options, error)) from None


def _option_lines(section: str, factory: Callable[..., Any], options: dict[str, Any], error: Exception) -> list[str]:
    """A line for each option that Optuna's class does not know, or for its own objection to a value."""
    known = [name for name in inspect.signature(factory).parameters if name != "seed"]
    unknown = [name for name in options if name not in known and name != "seed"]
    if not unknown:
        return [f"{section}: {error}"]
    return [f"{section}.{name}: unknown key; {_meant(name, known)}" for name in unknown]


def _meant(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"Optuna's class takes {', '.join(known)}"


def option_mistakes(sampler: SamplerSpec, pruner: PrunerSpec, epochs: int) -> list[str]:
    """Build both once, so that all mistakes in their options are told before a study is stored; a line for each."""
    mistakes = []
    for build in (lambda: make_sampler(sampler, seed=0), lambda: make_pruner(pruner, epochs)):
        try:
            build()
        except StudyFileError as error:
            mistakes += error.mistakes
    return mistakes


def distribution(parameter: Parameter) -> BaseDistribution:
    """Optuna's distribution; a constant becomes a range of one point: the dashboard shows it, and it can widen."""
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
    """Ask the trial for every parameter of the space; empty for the softmax head.

    A choice of integers comes back as an integer whatever the database made of it.
    """
    chosen: dict[str, float | int] = {}
    for name, parameter in space.items() if space else ():
        match distribution(parameter):
            case FloatDistribution(low=low, high=high, log=log):
                chosen[name] = trial.suggest_float(name, low, high, log=log)
            case IntDistribution(low=low, high=high, log=log):
                chosen[name] = trial.suggest_int(name, low, high, log=log)
            case CategoricalDistribution(choices=choices):
                value = trial.suggest_categorical(name, choices)
                chosen[name] = int(value) if name == "n_centers" else float(value)  # type: ignore[arg-type]
    return chosen
