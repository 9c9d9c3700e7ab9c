"""Tiny studies, made and trained within the test's own process."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from fake_objective import UNCLAIMED, FakeTrainer, fake_scores
from sqlalchemy import update

from affinity_search.search.api.opening import Asked
from affinity_search.search.api.opening import open_study as open_asked
from affinity_search.search.training.results import EpochScore
from affinity_search.search.view.pictures import Album
from affinity_search.search.worker.attempt import Attempt
from affinity_search.search.worker.loop import Worker
from affinity_search.storage.database import tables
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Claim, Holder, Places
from affinity_search.storage.study import StoredStudy

TESTS = Path(__file__).parent
ROOT = TESTS.parent
TINY = str(TESTS / "tiny.toml")
ARTICLE = ("protocol=article", "data={set='digits',minority=30}")
_workers = count()


def open_study(
    backend: Backend,
    source: str,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    trials: int | None = None,
) -> tuple[StoredStudy, list[str]]:
    """As `launch` and `worker` do with their options."""
    return open_asked(backend, Asked.of(source, name, overrides, trials))


def make(backend: Backend, name: str = "tiny", trials: int = 4, overrides: Sequence[str] = ()) -> StoredStudy:
    """A stored study with settled precision, as a first worker leaves it."""
    study, _ = open_study(backend, TINY, name=name, overrides=overrides, trials=trials)
    return study.settle_precision("float32")


def holder(worker: str | None = None) -> Holder:
    return Holder(worker or f"here-{next(_workers)}", "this-host", 1, "cpu, 1 thread")


def attempt_at(study: StoredStudy, claim: Claim, by: Holder, album: Album | None = None, **versions: str) -> Attempt:
    """Begun as a worker begins it."""
    files = StudyFiles(default_root(study.backend.url), study.token)
    return Attempt(study, claim, by, versions, files, print, album)


def worker_for(study: StoredStudy, worker: str | None = None, card: str | None = None) -> Worker:
    """The real worker around the fake objective; on a GPU if it has a `card`."""
    trainer: Any = FakeTrainer(UNCLAIMED, study.spec, "float32", None)
    if study.search is not None:
        trainer.open_test()
    files = StudyFiles(default_root(study.backend.url), study.token)
    return Worker(study, holder(worker), trainer, Places.of(study), {"python": "3"}, files, card=card)


def train(study: StoredStudy, most: int | None = None) -> int:
    """Use up free places here, `most` of them at most; returns how many it were."""
    worker = worker_for(study)
    ended = 0
    while (most is None or ended < most) and (claim := worker.places.claim(worker.holder)):
        ended += worker.run(claim, lambda: False)
    return ended


def reported(attempt: Attempt, *macro_f1: float) -> Attempt:
    """The same attempt after epochs of these scores."""
    for score in macro_f1:
        attempt.report(EpochScore(len(attempt.epochs), 0.5, fake_scores(score), 0.001))
    return attempt


def trained(backend: Backend, name: str = "tiny", trials: int = 4, overrides: Sequence[str] = ()) -> StoredStudy:
    """A study all of whose places are used."""
    study = make(backend, name, trials, overrides)
    train(study)
    return study


def redefined(study: StoredStudy, **training: Any) -> StoredStudy:
    """As a version without bounds would have stored it."""
    definition = study.spec.to_dict()
    definition["training"] |= training
    row = tables.studies.c.token == study.token
    with study.backend.engine.begin() as connection:
        connection.execute(update(tables.studies).where(row).values(definition=json.dumps(definition)))
    return study.refreshed()
