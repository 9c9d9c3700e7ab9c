"""The best trial as one JSON object, with all that is needed to check and repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from affinity_search.storage.errors import NothingToExportError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.places.place import ScoredPlace
from affinity_search.storage.results.bounds import crowded_bounds
from affinity_search.storage.results.evaluations import latest_test
from affinity_search.storage.results.pruning import pruning_of
from affinity_search.storage.results.verified import verification
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, TrialScores
from affinity_search.studies.data import SOURCES
from affinity_search.studies.heads import HEADS
from affinity_search.studies.metrics import DEFAULT, METRICS

SHOWN_REASONS = 3


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _params_schema() -> dict[str, Any]:
    """Either parameters of one of the heads and of the optimiser, or null where nothing is searched."""
    kinds = [
        {
            "additionalProperties": False,
            "description": f"Parameters of the {head.name} head.",
            "properties": {
                each.key: {"description": each.about, "type": "integer" if each.whole else "number"}
                for each in head.searchable
            },
            "required": [each.key for each in head.required],
            "type": "object",
        }
        for head in HEADS.values()
    ]
    return {"anyOf": [*kinds, {"type": "null"}]}


class ExportedCounts(_Model):
    """Places of the study; used = complete + pruned + failed."""

    total: int = Field(description="without the closed ones")
    used: int
    running: int
    complete: int
    pruned: int
    failed: int
    closed: int = Field(description="places that nobody will train, since the search was flat (`[stop]`)")


class ExportedPruning(_Model):
    """What the pruner saved, and how often it was wrong. Audited trials ran on when it would have stopped them."""

    share: float = Field(description="of the places, whose trials are audited: `pruner.audit`")
    stopped: int
    epochs_saved: int = Field(description="not trained by the stopped trials")
    audited: int = Field(description="trials that the pruner would have stopped and that ran on to their end")
    epochs_cost: int = Field(description="trained by these since then")
    among_best: int = Field(description="how many of these ended among the best tenth: there the pruner was wrong")
    best_tenth: int = Field(description="how many trials that is, rounded up; ties with the last of them count too")
    scored: int = Field(description="trials with a score")
    interval: tuple[float, float] | None = Field(
        description="of among_best / audited, 95 % by Clopper and Pearson; null where nothing was audited"
    )


class ExportedTest(_Model):
    """Scores on the test set, one for each run; under `article` the epoch was chosen on the test set too."""

    protocol: Literal["holdout", "article"]
    macro_f1_mean: float
    macro_f1_least: float
    macro_f1_greatest: float
    macro_f1: list[float]
    micro_f1: list[float]
    metrics: dict[str, list[float]] = Field(description="every metric, by its key in a study file")
    per_class_f1: list[list[float]]
    epochs: list[int] = Field(description="the best epoch of each run, counted from 1")
    draws: list[int] = Field(
        description="each run's draw: which training and validation images; empty for scores of an earlier version"
    )
    seeds: list[int]
    opened_at: float = Field(description="seconds since 1970, by the database's clock")
    opened_by: str


class ExportedTrial(_Model):
    """One trial that has a value: complete, or stopped by the pruner."""

    schema_version: Literal[2] = Field(
        default=2, description="2 counts `epoch` from 1, where 1 counted from 0; `state` and `epochs` are new"
    )
    study: str
    protocol: Literal["holdout", "article"]
    dataset: str = Field(json_schema_extra={"enum": list(SOURCES)})
    classes: list[str] = Field(default_factory=list, description="their names, in the order of every list by class")
    minority: int | None = Field(
        default=None,
        description="images per minority class of the profile `step`: test images, or of own data training images",
    )
    metric: str | None = Field(default=None, description="what `value` is made of; left out where it is macro F1")
    value: float = Field(
        description=f"1 - {METRICS[DEFAULT].label} of the best epoch; on validation images, or test under `article`"
    )
    macro_f1: float
    micro_f1: float = Field(description="equals accuracy: one label an image")
    per_class_f1: list[float]
    metrics: dict[str, float] = Field(description="every metric that the trial tells, by its key in a study file")
    params: Annotated[dict[str, int | float] | None, WithJsonSchema(_params_schema())] = Field(
        description="null where nothing is searched"
    )
    trial: int = Field(description="number of the Optuna trial")
    place: int
    attempt: int
    state: Literal["complete", "pruned"] = Field(description="pruned: the pruner stopped it after `epochs` epochs")
    epoch: int = Field(description="the best epoch, counted from 1")
    epochs: int = Field(description="epochs trained, an earlier attempt's among them")
    seed: int
    duration_s: float
    worker: str
    device: str
    versions: dict[str, str]
    fingerprint: str = Field(description="hash of what the score means")
    counts: ExportedCounts
    bounds: list[str] = Field(description="bounds of the space at which the best trials crowd, each with its remedy")
    test: ExportedTest | None = Field(description="null until evaluated")
    verified: str | None = Field(
        default=None, description="what training it again showed, and who did; null: nobody has"
    )


class ExportedContender(_Model):
    """A trial that final runs have judged, by the study's metric on the test images."""

    trial: int
    params: Annotated[dict[str, int | float] | None, WithJsonSchema(_params_schema())]
    draws: int = Field(description="how many draws it was judged on")
    mean: float
    low: float | None = Field(description="95 % interval of the mean, by Student's t over the draws; null for one")
    high: float | None
    tied: bool | None = Field(
        description="whether the interval of its paired difference to the best contains 0; null with under 5 draws"
    )


class Export(ExportedTrial):
    """The best trial; with `--top K`, also the K best. The judged trials are ranked by their means."""

    top: list[ExportedTrial] | None = None
    contenders: list[ExportedContender] | None = None
    pruning: ExportedPruning | None = Field(default=None, description="left out where the pruner had nothing to stop")


@dataclass(frozen=True)
class Scored:
    """A trial that has a value, with the place that counts it."""

    trial: FrozenTrial
    scores: TrialScores
    place: ScoredPlace


def best_trials(study: StoredStudy, top: int = 1) -> list[Scored]:
    """The `top` best trials, pruned ones too. The least value is first; with equal values the first place.

    Raises:
        NothingToExportError: no trial has a value yet.
    """
    places = Places.of(study)
    rows = places.best_rows(top)
    if not rows:
        raise NothingToExportError(_nothing(study.name, places))
    trials = _by_number(study.optuna)
    missing = [row.trial for row in rows if row.trial not in trials]
    if missing:
        raise NothingToExportError(
            f"study {study.name!r}: trials {missing} have no scores in Optuna's tables, although their places have a "
            "value; were they changed by hand?"
        )
    return [Scored(*trials[row.trial], row) for row in rows]


def refuse_final(study: StoredStudy) -> None:
    """Raises NothingToExportError for a study of final runs: its search carries their scores."""
    if study.search is not None:
        raise NothingToExportError(
            f"study {study.name!r} holds final runs; name the search that they belong to, which carries their scores"
        )


def _nothing(name: str, places: Places) -> str:
    """Why there is no best trial: none has finished yet, or all places failed."""
    counts, study = places.counts(), shlex.quote(name)
    reasons = [f"{number} × {reason.partition(chr(10))[0]}" for reason, number in places.failures().items()]
    failed = (
        f"; {counts.failed} of {counts.total} places failed: {'; '.join(reasons[:SHOWN_REASONS])}" if reasons else ""
    )
    if counts.used < counts.total:
        return f"study {name!r} has no finished trial yet{failed}; see: affinity-search status {study}"
    more = f"affinity-search launch {study} --trials {2 * (counts.total + counts.closed)}"
    return f"study {name!r} has no score, and no place is left{failed}; solve the cause, then add places with: {more}"


def _by_number(study: optuna.Study) -> dict[int, tuple[FrozenTrial, TrialScores]]:
    """Finished trials, and running ones with an ended place: their scores are stored, and their end follows at once."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
    return {trial.number: (trial, scores) for trial in found if (scores := TrialScores.of(trial))}


def export(study: StoredStudy, top: int | None = None, contenders: Sequence[Mapping[str, Any]] = ()) -> Export:
    """The best trial as a JSON-ready model; with `top`, also the list of the `top` best; and the `contenders`, as
    `experiments.evaluate` ranks them.

    Raises:
        NothingToExportError: no trial has finished.
    """
    refuse_final(study)
    counts = Places.of(study).counts().to_dict()
    bounds = [crowded.text for crowded in crowded_bounds(study)]
    trials = [_exported(study, one, counts, bounds) for one in best_trials(study, top or 1)]
    more: dict[str, Any] = {"top": trials} if top else {}
    more |= {"contenders": list(contenders)} if contenders else {}
    return Export.model_validate(trials[0] | more | {"pruning": exported_pruning(study)})


def exported_pruning(study: StoredStudy) -> ExportedPruning | None:
    """The figures of the pruner; None where it has stopped nothing and would have stopped nothing."""
    found = pruning_of(study)
    return ExportedPruning.model_validate(found.to_dict()) if found.text else None


def to_plain(exported: Export) -> dict[str, Any]:
    """Plain values, ready for JSON. `top`, `contenders` and `pruning` are included only where there are some."""
    plain = exported.model_dump(mode="json", by_alias=True)
    for key in ("top", "contenders", "pruning"):
        if plain[key] is None:
            del plain[key]
    for trial in (plain, *plain.get("top", ())):
        if trial["metric"] is None:
            del trial["metric"]
    return plain


def _exported(study: StoredStudy, one: Scored, counts: dict[str, int], bounds: list[str]) -> dict[str, Any]:
    spec, place, scores = study.spec, one.place, one.scores
    facts = TrialFacts.of(one.trial)
    return {
        "schema_version": 2,
        "study": spec.name,
        "protocol": spec.protocol,
        "dataset": spec.data.set,
        "classes": list(spec.data.source.classes),
        "minority": spec.data.minority,
        "metric": None if spec.metric == DEFAULT else spec.metric,
        "value": place.value,
        "params": spec.space.typed(place.params) if spec.space else None,
        "trial": one.trial.number,
        "place": place.number,
        "attempt": place.attempt,
        "fingerprint": study.fingerprint,
        "counts": counts,
        "bounds": bounds,
        "test": latest_test(study, one.trial.number),
        "verified": verification(study, one.trial.number),
        "state": place.state.value,
        "macro_f1": scores.macro_f1,
        "micro_f1": scores.micro_f1,
        "per_class_f1": scores.per_class_f1,
        "metrics": dict(scores.metrics),
        "epoch": scores.best_epoch,
        "epochs": scores.epochs,
        "seed": facts.seed,
        "duration_s": scores.duration_s,
        "worker": facts.worker,
        "device": facts.device,
        "versions": facts.versions,
    }


@cache
def schema_text() -> str:
    """The JSON schema that ships beside this file."""
    return (Path(__file__).parent / "export.schema.json").read_text(encoding="utf-8")


def make_schema() -> str:
    """The schema as the models define it. `make schema` writes it, and a test compares it with the shipped one."""
    return json.dumps(Export.model_json_schema(by_alias=True), indent=2) + "\n"
