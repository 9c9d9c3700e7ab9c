"""The parts of `make race` that need no rival: lines, results seen from outside, the data that all are given."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from affinity_search.search.worker.images import read_splits
from benchmarks.race.contenders import ALL, OPTUNA, OURS, Contender, in_database, in_result_files, in_trial_files
from benchmarks.race.job import CIFAR10, DIGITS, Job
from benchmarks.race.measure import FailedError, Measured, run
from benchmarks.race.table import lines_of, rows, verdict

TINY = Job("tiny", "digits", 2, ("training.epochs=3",))


def test_lines_are_those_with_code(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text('"""Says\nmuch."""\n\nx = 1  # why\n# alone\n\n\ndef f():\n    """One."""\n    return """a\nb"""\n')
    assert lines_of(path) == 4  # x, def, and the two of the returned text


def test_all_are_given_the_studys_own_division_and_settings(tmp_path: Path) -> None:
    DIGITS.prepare(tmp_path, None, jit_compile=False)
    train, validation = read_splits(DIGITS.spec(), None)
    with np.load(tmp_path / "images.npz") as images:
        assert all(
            np.array_equal(images[name], part) for name, part in zip(images, _arrays(train, validation), strict=True)
        )
    told = json.loads((tmp_path / "job.json").read_text())
    wanted = {"trials": 24, "epochs": 15, "batch": 64, "widths": [16, 32], "sigma": [1, 1000], "centers": 10}
    assert told | wanted == told
    assert (DIGITS.spec().training.precision, DIGITS.spec().pruner.kind) == ("float32", "none")


def _arrays(train: object, validation: object) -> list[np.ndarray]:
    return [getattr(part, name) for part in (train, validation) for name in ("images", "labels")]


def test_the_cifar_job_is_a_study_that_stands() -> None:
    assert (CIFAR10.spec().network.widths, CIFAR10.spec().training.augment) == ((16, 32, 64), False)


def test_results_are_counted_where_each_tool_puts_them(tmp_path: Path) -> None:
    assert [count(tmp_path, TINY) for count in (in_database("race.db"), in_trial_files, in_result_files)] == [0, 0, 0]
    with closing(sqlite3.connect(tmp_path / "race.db")) as database:
        database.execute("CREATE TABLE trials (state TEXT)")
        database.executemany("INSERT INTO trials VALUES (?)", [("COMPLETE",), ("RUNNING",)])
        database.commit()
    for name, text in {
        "trial_0/trial.json": '{"status": "COMPLETED"}',
        "trial_1/trial.json": '{"status": "RUNNING"}',
        "trial_2/trial.json": '{"sta',
        "a/result.json": "{}\n{}\n{}\n",
        "b/result.json": "{}\n",
    }.items():
        path = tmp_path / "tuner" / "race" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert [count(tmp_path, TINY) for count in (in_database("race.db"), in_trial_files, in_result_files)] == [1, 1, 1]


def test_a_run_is_measured_and_its_processes_counted(tmp_path: Path) -> None:
    def typed(job: Job, data_dir: Path | None) -> list[str]:
        return [f'{sys.executable} -c \'sum(range(20_000_000)); open("done", "w")\'', "sleep 1"]

    found = run(
        Contender("c", typed, lambda folder, job: TINY.trials * (folder / "done").exists()), TINY, tmp_path, None
    )
    assert found.first_s < found.whole_s - 0.5
    assert found.cpu_s > 0.1
    assert found.memory > 0


@pytest.mark.parametrize(("line", "results"), [("exit 3", 2), ("true", 1)])
def test_a_run_without_all_its_results_is_no_run(tmp_path: Path, line: str, results: int) -> None:
    contender = Contender("c", lambda job, data_dir: ["echo oops", line], lambda folder, job: results)
    with pytest.raises(FailedError, match=r"results: oops"):
        run(contender, TINY, tmp_path, None)


def test_the_table_has_all_rounds_and_the_ratio_to_ours() -> None:
    runs = {
        "ours": [Measured(10.0, 4.0, 15.0, 10**9)] * 2,
        "a": [Measured(40, 8, 60, 2 * 10**9), Measured(60, 9, 60, 0)],
    }
    ours, a = rows("digits", runs, {"ours": 1, "a": 60})
    assert ours == "| digits | ours | 10, 10 | **1.0** | 4.0, 4.0 | 15, 15 | 1.0, 1.0 | 1 |"
    assert a == "| digits | a | 40, 60 | **5.0** | 8.0, 9.0 | 60, 60 | 2.0, 0.0 | 60 |"
    assert verdict("digits", runs) == "digits: ours takes 0.20 of the time of the fastest rival, a."


def test_what_is_typed_is_a_shells_and_names_files_that_exist() -> None:
    for contender in ALL:
        text = "\n".join(contender.typed(DIGITS, None))
        assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0
        assert all(path.is_file() for path in contender.files)
    assert (len(OURS.typed(DIGITS, None)), OURS.files) == (1, [])
    assert OPTUNA.files
