"""Plans final runs: each is a place of a sibling study with its settings and its draw, before anyone claims it.

So they run on as many workers and machines as a search, and go on after a kill.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from sqlalchemy import insert, update

from affinity_search.storage.database import tables
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.results.final_runs import FinalRuns
from affinity_search.storage.stored.creation import create_study
from affinity_search.storage.study import SETTLED, StoredStudy, log, optuna_study
from affinity_search.studies.model.parameters import Params
from affinity_search.studies.model.spec import PrunerSpec, SamplerSpec, StudySpec

SUFFIX = ".final"


def plan_final_runs(search: StoredStudy, settings: Mapping[int, Params], draws: int) -> StoredStudy:
    """The search's study of final runs, with a place for every trial in `settings` on draws 1 … `draws`.

    What was planned earlier stays. The settings of the trials are as they are given at the first time.

    Raises:
        StorageError: the search has not settled its precision yet.
    """
    search.settled_precision  # noqa: B018 - a search that trained has one
    with search.backend.exclusive():
        before = FinalRuns.of(search)
        there = {(run.trial, run.draw) for run in before.runs}
        missing = [
            (trial, draw, params)
            for draw in range(1, draws + 1)  # draw by draw: whatever ends early has pairs
            for trial, params in settings.items()
            if (trial, draw) not in there
        ]
        study = before.study or _create(search)
        if missing:
            _add(study, search, len(there), missing)
    return study.refreshed()


def _create(search: StoredStudy) -> StoredStudy:
    kept = {key: getattr(search, key) for key in (*SETTLED, "comparison", "contestant", "level")}
    spec = _spec(search.spec, next(name for name in _names(search.name) if not optuna_study(search.backend, name)), 0)
    metric = f"1 - {spec.score.label} (test images, {spec.protocol})"
    return create_study(search.backend, spec, kept | {"search": search.token}, places=0, metric=metric)


def _names(search: str) -> Iterator[str]:
    yield f"{search}{SUFFIX}"
    for number in range(2, 1000):
        yield f"{search}{SUFFIX}{number}"


def _spec(spec: StudySpec, name: str, runs: int) -> StudySpec:
    """The search's definition: its scores mean the same. Nothing proposes, prunes or stops.

    A final run is one training. Where a search's trial has several, it holds the share of one of these out.
    """
    planned = {"points": (), "sampler": SamplerSpec(kind="random"), "pruner": PrunerSpec(kind="none"), "stop": None}
    planned["data"] = spec.data.model_copy(update={"validation": spec.data.held_out})
    return spec.model_copy(update={"name": name, "trials": max(runs, 1), **planned})


def _add(study: StoredStudy, search: StoredStudy, present: int, missing: list[tuple[int, int, Params]]) -> None:
    rows = [
        {
            "token": study.token,
            "number": present + at,
            "state": PlaceState.FREE,
            "attempt": 0,
            "params": json.dumps(dict(params)),
            "draw": draw,
            "source": trial,
        }
        for at, (trial, draw, params) in enumerate(missing)
    ]
    # The search's space may have become wider since, and its attempts more.
    definition = json.dumps(_spec(search.refreshed().spec, study.name, present + len(rows)).to_dict())
    table = tables.studies
    trials = ", ".join(str(trial) for trial in sorted({trial for trial, _, _ in missing}))
    with study.backend.engine.begin() as connection:
        connection.execute(insert(tables.places), rows)
        connection.execute(update(table).where(table.c.token == study.token).values(definition=definition))
        log(connection, study.backend, study.token, "planned", f"{len(rows)} final runs of trials {trials}")
