"""How long the dashboard takes with a large study: its first load and the polls that follow, over HTTP with a login."""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import math
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from commands import machine
from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from affinity_search.search.api.opening import Asked, open_study
from affinity_search.search.view.publishing import Reporter
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.tables import PlaceState, places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import MADE_BY, SCORES

SPACE = {
    "lambda": FloatDistribution(0.01, 1.0),
    "sigma": FloatDistribution(1, 1000, log=True),
    "n_centers": IntDistribution(1, 10),
}
AT_ONCE = 500
NAN = "the loss became NaN in epoch 2"
ATTRIBUTES = models.TrialUserAttributeModel


def main() -> None:
    """Fill a database (again only if there is none yet), serve it, load it as a browser does, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--storage", help="default: a SQLite file in a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.storage or f"sqlite:///{folder}/studies.db"
        backend = open_backend(url, create=True)
        started = time.perf_counter()
        study, _ = open_study(backend, Asked.of("digits", "large", None, options.trials + 1))
        if not study.optuna.get_trials(deepcopy=False):
            fill(backend, study, options.trials, options.reports)
            Reporter(study).write()
        study.optuna.ask()  # a running one: what the browser polls for
        print(f"{options.trials} trials of {options.reports} reports, filled in {time.perf_counter() - started:.0f} s")
        with served(url, Path(folder)) as ask:
            measure(ask, options.trials)
    print(machine())


def fill(backend: Backend, study: StoredStudy, trials: int, reports: int) -> None:
    """Rows as a real search leaves them, many at a time: one by one it would take ten minutes."""
    with Session(backend.engine) as session, session.begin():
        row = session.execute(select(models.StudyModel).where(models.StudyModel.study_name == study.name)).scalar_one()
        for first in range(0, trials, AT_ONCE):
            made = [Made(number, reports) for number in range(first, min(first + AT_ONCE, trials))]
            _fill(session, row.study_id, made)
            session.connection().execute(_update(study), [one.place for one in made])


def _update(study: StoredStudy) -> Any:
    written = ("state", "attempt", "trial", "value", "params", "worker", "reason", "cause", "claimed_at", "finished_at")
    mine = (places.c.token == study.token, places.c.number == bindparam("which"))
    return update(places).where(*mine).values({name: bindparam(f"new_{name}") for name in written})


def _fill(session: Session, study_id: int, made: Sequence[Made]) -> None:
    rows = [one.trial(study_id) for one in made]
    ids = list(session.scalars(insert(models.TrialModel).returning(models.TrialModel.trial_id), rows))
    for model in (models.TrialValueModel, models.TrialIntermediateValueModel, models.TrialParamModel, ATTRIBUTES):
        parts = [{"trial_id": id_} | part for id_, one in zip(ids, made, strict=True) for part in one.parts(model)]
        if parts:
            session.execute(insert(model), parts)


class Made:
    """A trial as a search with a pruner leaves it: most are pruned in their first epochs, a few fail."""

    def __init__(self, number: int, reports: int) -> None:
        chance = random.Random(number)
        self.number = number
        self.state = TrialState.PRUNED if (luck := chance.random()) < 0.85 else TrialState.COMPLETE
        self.state = TrialState.FAIL if luck > 0.97 else self.state
        self.params = {"lambda": chance.uniform(0.01, 1), "sigma": 10 ** chance.uniform(0, 3)}
        self.params["n_centers"] = chance.randint(1, 10)
        epochs = reports if self.state == TrialState.COMPLETE else chance.randint(1, max(1, reports // 3))
        # Good are a small lambda and a sigma of about 30; curves rise, and the best so far is what is reported.
        good = 1 - 0.3 * self.params["lambda"] - 0.2 * abs(math.log10(self.params["sigma"]) - 1.5)
        curve = [good * (1 - 0.7 ** (epoch + 2)) + chance.gauss(0, 0.01) for epoch in range(epochs)]
        self.scores = [min(1 - score for score in curve[: epoch + 1]) for epoch in range(epochs)]
        self.best_epoch = self.scores.index(min(self.scores))
        self._chance = chance

    @property
    def value(self) -> float | None:
        return None if self.state == TrialState.FAIL else self.scores[-1]

    @property
    def place(self) -> dict[str, Any]:
        ended = {TrialState.COMPLETE: PlaceState.COMPLETE, TrialState.PRUNED: PlaceState.PRUNED}
        state = str(ended.get(self.state, PlaceState.SPENT))
        new = {"state": state, "attempt": 1, "trial": self.number, "value": self.value, "worker": "host-1"}
        failure = ("diverged", NAN) if self.value is None else (None, None)
        new |= {"params": json.dumps(self.params), "cause": failure[0], "reason": failure[1]}
        new |= {"claimed_at": 60.0 * self.number, "finished_at": 60.0 * (self.number + 1)}
        return {f"new_{name}": value for name, value in new.items()} | {"which": self.number}

    def trial(self, study_id: int) -> dict[str, Any]:
        begun = datetime(2026, 1, 1) + timedelta(seconds=self.number)
        times = {"datetime_start": begun, "datetime_complete": begun + timedelta(seconds=60)}
        return {"number": self.number, "study_id": study_id, "state": self.state} | times

    def parts(self, model: Any) -> list[dict[str, Any]]:
        """What the trial has in that table."""
        if model is models.TrialValueModel:
            return [] if self.value is None else [{"objective": 0, "value": self.value, "value_type": "FINITE"}]
        if model is models.TrialIntermediateValueModel:
            kind = {"intermediate_value_type": "FINITE"}
            return [{"step": step, "intermediate_value": score} | kind for step, score in enumerate(self.scores)]
        if model is models.TrialParamModel:
            return [
                {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(SPACE[name])}
                for name, value in self.params.items()
            ]
        return [{"key": key, "value_json": json.dumps(value)} for key, value in self._attributes().items()]

    def _attributes(self) -> dict[str, Any]:
        made_by = {"place": self.number, "attempt": 1, "seed": self.number, "worker": f"host-{self.number % 4}"}
        versions = {"python": "3.13.1", "keras": "3.15.1", "tensorflow": "2.21.0", "optuna": "5.0.0"}
        made_by |= {"device": "cpu, 2 threads", "protocol": "holdout", "versions": versions}
        if self.value is None:
            return {MADE_BY: made_by, "cause": "diverged", "reason": NAN, "duration_s": 1.5}
        return {MADE_BY: made_by, SCORES: self._scores(1 - self.value)}

    def _scores(self, macro_f1: float) -> dict[str, Any]:
        each = [min(1.0, max(0.0, self._chance.gauss(macro_f1, 0.05))) for _ in range(10)]
        confusion = [[self._chance.randint(0, 40) for _ in range(10)] for _ in range(10)]
        dead = [self._chance.randint(0, int(self.params["n_centers"])) for _ in range(10)]
        told = {"hinge": 0.1, "diversity": 0.2, "inside": min(1.0, self.params["sigma"] / 500), "dead": dead}
        told |= {"n_centers": self.params["n_centers"], "within": 1.5, "between": 2.5, "closest": 0.5}
        epochs = {"epoch": self.best_epoch, "best_epoch": self.best_epoch + 1, "epochs": len(self.scores)}
        means = {"minority_f1": sum(each[::2]) / 5, "majority_f1": sum(each[1::2]) / 5, "micro_f1": macro_f1}
        scores = {"macro_f1": macro_f1, "accuracy": macro_f1, "per_class_f1": each, "support": [40] * 10, **means}
        return {**epochs, "duration_s": 4.0 * len(self.scores), **scores, "confusion": confusion, "diagnostics": told}


@contextmanager
def served(url: str, folder: Path) -> Iterator[Any]:
    """The real command in a process of its own, and a function that asks it for a path as a browser would."""
    password = folder / "password"
    password.write_text("bench:" + secrets.token_urlsafe(12))
    password.chmod(0o600)
    command = [
        sys.executable,
        "-P",
        "-m",
        "affinity_search",
        "dashboard",
        "--port",
        "0",
        "--password-file",
        str(password),
    ]
    environment = os.environ | {"AFFINITY_SEARCH_STORAGE": url}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = ""
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", line)):
        line = process.stderr.readline()
        assert line, "the dashboard has ended"
    print(f"command to address: {time.perf_counter() - started:.2f} s")
    credentials = base64.b64encode(password.read_bytes()).decode()

    def ask(path: str) -> tuple[Any, int, float]:
        begun = time.perf_counter()
        headers = {"Authorization": f"Basic {credentials}", "Accept-Encoding": "gzip"}
        with urllib.request.urlopen(urllib.request.Request(found[0] + path, headers=headers), timeout=300) as answer:
            body = answer.read()
            plain = gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body
        return json.loads(plain), len(body), time.perf_counter() - begun

    try:
        yield ask
    finally:
        process.terminate()
        process.wait()


def measure(ask: Any, trials: int) -> None:
    """The first load, a reload, and five polls ten seconds apart: the dashboard keeps trials for up to ten seconds."""
    summaries, _, _ = ask("/api/studies")
    (study,) = [one["study_id"] for one in summaries["study_summaries"] if one["study_name"] == "large"]
    for name in ("first load", "reload"):
        detail, size, seconds = ask(f"/api/studies/{study}")
        assert len(detail["trials"]) >= trials
        print(f"{name}: {seconds:.2f} s, {size / 1e6:.1f} MB over the wire")
    polls = []
    for _ in range(5):
        time.sleep(10)
        polls.append(ask(f"/api/studies/{study}?after={trials}")[2])
    print(f"polls: {', '.join(f'{seconds:.2f}' for seconds in polls)} s")
    print(f"importances: {ask(f'/api/studies/{study}/param_importances')[2]:.2f} s")


if __name__ == "__main__":
    main()
