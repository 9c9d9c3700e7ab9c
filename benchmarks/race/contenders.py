"""Who runs: the lines that a user types, the files that they write first, and how a result is seen from outside."""

from __future__ import annotations

import json
import shlex
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.race.job import Job

RIVALS = Path(__file__).parent / "rivals"
PORT = "8123"


@dataclass(frozen=True)
class Contender:
    """`typed` are lines for a shell in an empty folder; `wrote` the user's own files in `rivals/`.

    `finished` counts the trials that have a result in that folder.
    """

    name: str
    typed: Callable[[Job, Path | None], Sequence[str]]
    finished: Callable[[Path, Job], int]
    wrote: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        return [RIVALS / name for name in self.wrote]


def _python(script: str) -> str:
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(RIVALS / script))}"


def _ours(job: Job, data_dir: Path | None) -> list[str]:
    settings = " ".join(f"--set {shlex.quote(each)}" for each in job.settings)
    data = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else ""
    python = f"{shlex.quote(sys.executable)} -P -m affinity_search"  # the command, in a checkout too
    return [f"{python} launch {job.study} --workers 2 --trials {job.trials} {settings}{data}"]


def _optuna(job: Job, data_dir: Path | None) -> list[str]:
    made = 'optuna.create_study(study_name="race", storage="sqlite:///race.db", direction="maximize")'
    create = f"{shlex.quote(sys.executable)} -c 'import optuna; {made}'"  # its tutorial: before the two start
    return [create, f"{_python('plain_optuna.py')} &", f"{_python('plain_optuna.py')} &", "wait"]


def _kerastuner(job: Job, data_dir: Path | None) -> list[str]:
    names = ("chief", "tuner0", "tuner1")
    chief, first, second = (f"KERASTUNER_TUNER_ID={name} {_python('kerastuner.py')}" for name in names)
    exports = f"export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT={PORT}"
    # The chief looks every 20 s whether it may end: nobody waits for that.
    return [exports, f"{chief} & CHIEF=$!", f"{first} & FIRST=$!", second, "wait $FIRST; kill $CHIEF"]


def _ray(job: Job, data_dir: Path | None) -> list[str]:
    return [_python("ray_tune.py")]


def in_database(name: str) -> Callable[[Path, Job], int]:
    """Complete trials in an SQLite file of Optuna's."""

    def count(folder: Path, job: Job) -> int:
        try:
            with closing(sqlite3.connect(f"file:{folder / name}?mode=ro", uri=True)) as database:
                return int(database.execute("SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
        except sqlite3.Error:  # not there yet, or being written
            return 0

    return count


def in_trial_files(folder: Path, job: Job) -> int:
    """KerasTuner's."""
    states = [_json(path).get("status") for path in (folder / "tuner").glob("race/trial_*/trial.json")]
    return states.count("COMPLETED")


def in_result_files(folder: Path, job: Job) -> int:
    """Ray Tune's: a line an epoch."""
    epochs = job.spec().training.epochs
    paths = (folder / "tuner").glob("race/*/result.json")
    return sum(len(path.read_text().splitlines()) >= epochs for path in paths)


def _json(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):  # being written
        return {}


OURS = Contender("affinity-search", _ours, in_database("ours.db"), (), {"AFFINITY_SEARCH_STORAGE": "sqlite:///ours.db"})
OPTUNA = Contender("plain Optuna", _optuna, in_database("race.db"), ("network.py", "plain_optuna.py"))
KERASTUNER = Contender("KerasTuner", _kerastuner, in_trial_files, ("network.py", "kerastuner.py"))
RAY = Contender("Ray Tune", _ray, in_result_files, ("network.py", "ray_tune.py"))
ALL = (OURS, OPTUNA, KERASTUNER, RAY)
