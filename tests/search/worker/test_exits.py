"""One table of exit codes: what it says, what it is told apart by, and that the documentation repeats it."""

import re

import pytest
from conftest import Cli, Start
from making import ROOT, make
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from affinity_search.search.cli.app import app
from affinity_search.search.devices.errors import DeviceError
from affinity_search.search.devices.nvidia import NoSuchDeviceError
from affinity_search.search.launch.launcher import WorkersDieError
from affinity_search.search.training.errors import DataError, DivergedError, OutOfMemoryError
from affinity_search.search.worker.exits import Exit, exit_for
from affinity_search.search.worker.setup import WorkerOptions
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import RepeatedFailureError, StorageError
from affinity_search.storage.places.claims import Places
from affinity_search.storage.trials.seeds import trial_seed
from affinity_search.studies.errors import StudyFileError

DOCS = ROOT / "docs" / "commands.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeviceError("gone"), Exit.UNFIT_DEVICE),
        (NoSuchDeviceError("never there"), Exit.UNFIT_DEVICE),
        (DataError("no images"), Exit.UNFIT_MACHINE),
        (RepeatedFailureError("three"), Exit.UNFIT_MACHINE),
        (OutOfMemoryError("full"), Exit.OUT_OF_MEMORY),
        (DivergedError(0, float("nan")), Exit.FAILED),
        (StorageError("away"), Exit.FAILED),
        (StudyFileError("x.toml", ["wrong"]), Exit.FAILED),
        (WorkersDieError("its worker's words", Exit.OUT_OF_MEMORY), Exit.OUT_OF_MEMORY),
        (WorkersDieError("nobody knows why"), Exit.FAILED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (ZeroDivisionError("a bug"), None),
    ],
)
def test_the_code_of_a_fault(error: BaseException, code: Exit | None) -> None:
    assert exit_for(error) is code


def test_the_documentation_has_the_same_table() -> None:
    found = re.findall(r"^\| (\d+) \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == [(str(int(one)), one.meaning) for one in Exit]


def test_the_help_has_it_too() -> None:
    said = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    for one in Exit:
        assert f"{int(one)}: {one.meaning}" in said


def test_a_launch_all_of_whose_trials_failed_for_different_causes(
    sqlite: Backend, sqlite_url: str, start: Start
) -> None:
    make(sqlite, trials=2, overrides=["max_attempts=1"])
    faults = {"FAKE_DIVERGING": str(trial_seed(0, 0)), "FAKE_FULL": str(trial_seed(0, 1))}
    launch = start("launch", "tiny", "--workers", "1", "--storage", sqlite_url, **faults)
    assert launch.ended() == Exit.NO_SCORE, launch.said
    assert "next:" not in launch.said


@pytest.mark.parametrize("command", [("launch", "digits", "--devices"), ("worker", "digits", "--device")])
def test_one_fault_has_one_code_in_every_command(command: tuple[str, ...], sqlite_url: str, cli: Cli) -> None:
    ran = cli(*command, "abacus", "--storage", sqlite_url, fails=True)
    assert ran.code == Exit.UNFIT_DEVICE
    assert "abacus" in ran.err.splitlines()[-1]


def test_a_worker_that_is_stopped_while_the_storage_is_away(
    sqlite: Backend, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(sqlite)

    def stopped(study: object, options: WorkerOptions) -> int:
        def away(places: Places) -> None:
            raise OperationalError("SELECT", {}, Exception("server closed the connection"))

        monkeypatch.setattr(Places, "counts", away)
        assert options.signals is not None
        options.signals.draining = True
        return 0

    monkeypatch.setattr("affinity_search.search.worker.setup.work", stopped)
    assert cli("worker", "tiny", "--device", "cpu", "--storage", sqlite_url, fails=True).code == Exit.STOPPED
