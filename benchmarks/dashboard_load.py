"""How long the dashboard takes with a large study: its first load and the polls that follow, over HTTP with a login."""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from commands import machine
from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from search.definition import Asked, open_study
from storage.backend import Backend, open_backend
from storage.study import StoredStudy

SPACE = {
    "lambda": FloatDistribution(0.01, 1.0),
    "sigma": FloatDistribution(1, 1000, log=True),
    "n_centers": IntDistribution(1, 10),
}
AT_ONCE = 500
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
            numbers = range(first, min(first + AT_ONCE, trials))
            _fill(session, row.study_id, numbers, reports)


def _fill(session: Session, study_id: int, numbers: range, reports: int) -> None:
    rows = [_trial(study_id, number) for number in numbers]
    ids = list(session.scalars(insert(models.TrialModel).returning(models.TrialModel.trial_id), rows))
    for model in (models.TrialValueModel, models.TrialIntermediateValueModel, models.TrialParamModel, ATTRIBUTES):
        session.execute(insert(model), [{"trial_id": trial} | part for trial in ids for part in _parts(model, reports)])


def _parts(model: Any, reports: int) -> list[dict[str, Any]]:
    """What one trial has in that table."""
    if model is models.TrialValueModel:
        return [{"objective": 0, "value": random.random(), "value_type": "FINITE"}]
    if model is models.TrialIntermediateValueModel:
        kind = {"intermediate_value_type": "FINITE"}
        return [{"step": step, "intermediate_value": random.random()} | kind for step in range(reports)]
    if model is models.TrialParamModel:
        return [
            {
                "param_name": name,
                "param_value": random.uniform(space.low, space.high),
                "distribution_json": distribution_to_json(space),
            }
            for name, space in SPACE.items()
        ]
    return [{"key": key, "value_json": json.dumps(value)} for key, value in _attributes().items()]


def _trial(study_id: int, number: int) -> dict[str, Any]:
    begun = datetime(2026, 1, 1) + timedelta(seconds=number)
    ended = begun + timedelta(seconds=60)
    return {
        "number": number,
        "study_id": study_id,
        "state": TrialState.COMPLETE,
        "datetime_start": begun,
        "datetime_complete": ended,
    }


def _attributes() -> dict[str, Any]:
    scores = [random.random() for _ in range(10)]
    return {"place": 1, "attempt": 1, "seed": 12345, "worker": secrets.token_hex(8), "per_class_f1": scores}


@contextmanager
def served(url: str, folder: Path) -> Iterator[Any]:
    """The real command in a process of its own, and a function that asks it for a path as a browser would."""
    password = folder / "password"
    password.write_text("bench:" + secrets.token_urlsafe(12))
    password.chmod(0o600)
    command = [sys.executable, "-P", "-m", "search", "dashboard", "--port", "0", "--password-file", str(password)]
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
