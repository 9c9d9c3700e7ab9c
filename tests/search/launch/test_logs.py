"""What only informs never decides: logs, and folders that cannot be written are found before the work."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import Cli, Start
from making import TINY, make, trained
from waiting import until

from affinity_search.search.devices.slots import Slot
from affinity_search.search.launch import logs
from affinity_search.search.launch.process import WorkerProcess
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.files import StudyFiles, default_root, why_not_writable
from affinity_search.storage.places.claims import Places

NO_FOLDER = "/dev/null/below"  # cannot be made, not even by root


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    return StudyFiles(tmp_path / "files", "token")


def silent(line: str) -> None:
    raise AssertionError(line)


class TestFolders:
    def test_they_lie_among_the_study_s_files(self, files: StudyFiles) -> None:
        folder = logs.new_folder(files, silent)
        assert folder.parent == files.logs
        assert logs.folders(files) == [folder]

    def test_the_last_few_are_kept_and_those_of_living_launches(
        self, files: StudyFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("psutil.pid_exists", lambda number: number in (1, os.getpid()))
        here = logs._here()
        for day in range(1, 10):
            (files.logs / f"2020010{day}-000000-{here}-{1 if day == 2 else 100 + day}").mkdir(parents=True)
        (files.logs / "20200101-000000-elsewhere-7").mkdir()
        newest = logs.new_folder(files, silent)
        days = [folder.name[7] for folder in logs.folders(files) if folder != newest]
        assert days == ["9", "8", "7", "6", "2"]
        assert (files.logs / "20200101-000000-elsewhere-7").is_dir()

    def test_elsewhere_if_they_cannot_be_written(self) -> None:
        said: list[str] = []
        folder = logs.new_folder(StudyFiles(Path(NO_FOLDER), "token"), said.append)
        assert folder.is_dir()
        assert said == [f"logs cannot be kept in {NO_FOLDER}/token/logs (Not a directory); they are in {folder}"]
        folder.rmdir()

    def test_nowhere_if_there_is_no_temporary_folder_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", NO_FOLDER)
        said: list[str] = []
        folder = logs.new_folder(StudyFiles(Path(NO_FOLDER), "token"), said.append)
        assert said[0].endswith("they are in nowhere")
        with WorkerProcess(Slot("cpu", "cpu", 1, {}), folder)._open_log() as log:
            assert log.name == os.devnull
        assert "is gone" in WorkerProcess(Slot("cpu", "cpu", 1, {}), folder).last_line()


def test_status_names_them(sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
    study = make(sqlite)
    folder = logs.new_folder(StudyFiles(default_root(sqlite.url), study.token), silent)
    shown = cli("status", "tiny", "--storage", sqlite_url)
    assert f"logs of the last launch on this machine: {folder}" in shown.out + shown.err
    assert json.loads(cli("status", "tiny", "--json", "--storage", sqlite_url).out)["logs"] == [str(folder)]


def test_a_launch_outlives_its_logs(sqlite: Backend, sqlite_url: str, start: Start, tmp_path: Path) -> None:
    """Cleaners remove them; then a worker dies, and another is started."""
    study, gate = make(sqlite), tmp_path / "gate"
    launch = start("launch", "tiny", "--workers", "1", "--storage", sqlite_url, FAKE_GATE=str(gate))
    (held,) = until(lambda: [row for row in Places.of(study).held() if row.trial is not None], "it")
    found = re.search(r"logs in (\S+)", launch.said)
    assert found
    shutil.rmtree(found[1])
    os.kill(held.pid, signal.SIGKILL)
    gate.touch()
    assert launch.ended() == 0, launch.said
    assert f"died (killed by SIGKILL): (its log {found[1]}" in launch.said
    assert "4 of 4 trials done" in launch.said


class TestBeforeTheWork:
    @pytest.mark.parametrize("command", ["launch", "worker"])
    def test_files_that_cannot_be_written_are_refused(self, command: str, sqlite_url: str, cli: Cli) -> None:
        ran = cli(command, TINY, "--files", NO_FOLDER, "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert f"error: --files {NO_FOLDER} cannot be written: Not a directory; name another folder" in ran.err

    def test_so_is_the_folder_of_embed(self, sqlite: Backend, sqlite_url: str, cli: Cli) -> None:
        trained(sqlite)
        ran = cli("embed", "tiny", "-o", NO_FOLDER, "--storage", sqlite_url, fails=True)
        assert ran.refused() == f"{NO_FOLDER} cannot be written: Not a directory; name another folder with -o"

    def test_a_full_disk_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert why_not_writable(tmp_path / "new" / "folder") is None
        full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **where: full)
        assert why_not_writable(tmp_path) == "No space left on device"
