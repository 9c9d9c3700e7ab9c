"""The SQLite file is deleted, moved or replaced while it is in use: everybody says so, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, Start
from making import make, train
from optuna.trial import TrialState
from sqlalchemy import Connection, text
from waiting import until
from watching import logs, waiting
from werkzeug.test import Client

from affinity_search.search.view.dashboard.serving import Access, guarded
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.database.patience import Patience, is_transient
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.errors import NoDatabaseError, VanishedError
from affinity_search.storage.files import default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy, load_study
from affinity_search.storage.trials.facts import TrialFacts
from affinity_search.storage.trials.reading import reading_storage
from affinity_search.storage.urls import parse_url

GONE = ("", "-wal", "-shm")


def remove(database: Path) -> None:
    for suffix in GONE:
        database.with_name(database.name + suffix).unlink(missing_ok=True)


@pytest.fixture
def database(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def study(sqlite: Backend) -> StoredStudy:
    """Two of four places are used."""
    study = make(sqlite)
    train(study, most=2)
    return study


def values(study: StoredStudy) -> list[float | None]:
    return [row.value for row in Places.of(study).rows()]


def reopened(path: Path) -> StoredStudy:
    return load_study(open_backend(f"sqlite:///{path}", create=False), "tiny")


def found_gone(backend: Backend) -> str:
    with pytest.raises(VanishedError) as caught:
        backend.check()
    return str(caught.value)


class TestTheWholeSearch:
    def test_a_deleted_database_ends_everybody_and_the_copy_goes_on(
        self, study: StoredStudy, database: Path, start: Start, cli: Cli, fake_workers: None, tmp_path: Path
    ) -> None:
        before, gate, url = values(study), tmp_path / "gate", f"sqlite:///{database}"
        launch = start("launch", "tiny", "--workers", "2", "--storage", url, FAKE_GATE=str(gate))
        until(lambda: len(waiting(study)) == 2, "two trials to wait at the gate")
        study.backend.close()
        remove(database)
        assert launch.ended() == Exit.VANISHED
        gate.touch()

        told = [line for line in launch.said.splitlines() if "error" in line]
        rescued = tmp_path / "studies.rescued.db"
        assert len(told) == 1
        assert told[0].startswith(f"error: {database} was deleted or moved away while it was in use; its contents are")
        assert told[0].endswith(f"go on with: affinity-search launch STUDY --storage sqlite:///{rescued}")
        assert "evaluate" not in launch.said
        said = [log.read_text().splitlines()[-1] for log in logs(launch).iterdir()]
        assert said == [told[0]] * 2, "no worker was started into the void"
        assert not database.exists()
        assert list(tmp_path.glob("*rescued*")) == [rescued]

        copy = reopened(rescued)
        assert values(copy) == before
        assert [row.attempt for row in Places.of(copy).rows()] == [1, 1, 0, 0], "held places are given back"
        copy.backend.close()
        cli("launch", "tiny", "--workers", "1", "--storage", f"sqlite:///{rescued}")
        copy = reopened(rescued)
        assert [row.state for row in Places.of(copy).rows()] == [PlaceState.COMPLETE] * 4
        assert values(copy)[:2] == before[:2]
        trials = copy.optuna.get_trials()
        assert [trial.state for trial in trials[2:4]] == [TrialState.FAIL] * 2, "nothing is RUNNING for good"
        resumed = [TrialFacts.of(trial).resumed_epochs for trial in trials[4:]]
        assert resumed == [1, 1], "from the checkpoints in studies.files"


def test_a_worker_of_its_own_ends_and_keeps_its_checkpoint(
    study: StoredStudy, database: Path, start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start("worker", "tiny", "--device", "cpu", "--storage", f"sqlite:///{database}", FAKE_GATE=str(gate))
    until(lambda: waiting(study), "a trial to wait at the gate")
    remove(database)
    gate.touch()  # the next report finds it gone
    assert worker.ended() == Exit.VANISHED
    assert worker.said.count("was deleted or moved away") == 1, "one line"
    assert "Traceback" not in worker.said
    assert [path.name for path in default_root(study.backend.url).rglob("*.npz")] == ["2.npz"]


class TestWhatIsGone:
    """In this process; what processes do with the error is tested above."""

    def test_a_file_that_is_there_is_no_news(self, study: StoredStudy) -> None:
        study.backend.check()
        assert not study.backend.vanished

    @pytest.mark.parametrize("suffix", GONE)
    def test_each_of_sqlite_s_files(self, study: StoredStudy, database: Path, suffix: str) -> None:
        database.with_name(database.name + suffix).unlink()
        assert f"{database}{suffix} was deleted or moved away" in found_gone(study.backend)
        assert values(reopened(database.with_name("studies.rescued.db")))[2:] == [None, None]

    def test_replaced_by_another_database(self, study: StoredStudy, database: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.db"
        make(open_backend(f"sqlite:///{other}", create=True), "other").backend.close()
        other.replace(database)
        assert f"{database} was replaced by another file" in found_gone(study.backend)
        study.backend.close()
        assert values(reopened(tmp_path / "studies.rescued.db"))[0] is not None
        # The log of the first one, which is still there, is not taken for the other's.
        assert load_study(open_backend(f"sqlite:///{database}", create=False), "other")

    def test_a_moved_folder_has_the_copy_and_its_checkpoints(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there, moved = tmp_path / "there", tmp_path / "moved"
        there.mkdir()
        backend = make(open_backend(f"sqlite:///{there / 'a.db'}", create=True)).backend
        there.rename(moved)
        assert f"saved in {moved / 'a.rescued.db'}" in found_gone(backend)
        assert default_root(parse_url(f"sqlite:///{moved / 'a.rescued.db'}")) == moved / "a.files"

    def test_a_deleted_folder_leaves_the_present_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there, here = tmp_path / "there", tmp_path / "here"
        there.mkdir()
        here.mkdir()
        monkeypatch.chdir(here)
        backend = make(open_backend(f"sqlite:///{there / 'a.db'}", create=True)).backend
        shutil.rmtree(there)
        assert f"saved in {here / 'a.rescued.db'}" in found_gone(backend)
        assert not there.exists()
        assert len(values(reopened(here / "a.rescued.db"))) == 4

    def test_a_folder_that_takes_nothing_keeps_the_checkpoints(
        self, study: StoredStudy, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        root = default_root(study.backend.url)
        root.mkdir()
        real = Path.touch

        def touch(path: Path, *args: int, **kwargs: bool) -> None:
            if path.parent == tmp_path:
                raise OSError(28, "No space left on device")
            real(path, *args, **kwargs)

        monkeypatch.setattr(Path, "touch", touch)
        remove(database)
        assert found_gone(study.backend).endswith(f"--storage sqlite:///{here / 'studies.rescued.db'} --files {root}")

    def test_a_symbolic_link_is_what_it_leads_to(self, study: StoredStudy, database: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.db"
        link.symlink_to(database)
        backend = open_backend(f"sqlite:///{link}", create=False)
        load_study(backend, "tiny")
        backend.check()
        link.unlink()
        link.symlink_to(tmp_path / "elsewhere.db")
        assert f"{link} was deleted or moved away" in found_gone(backend)
        assert reopened(tmp_path / "studies.rescued.db"), "named after the file itself"

    def test_a_file_system_that_does_not_answer_is_no_loss(
        self, study: StoredStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path, **options: bool) -> os.stat_result:
            raise OSError(116, "Stale file handle")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "stat", fail)
            study.backend.check()
            assert len(values(study)) == 4
        study.backend.check()


class TestTheCopy:
    def test_requests_find_out_on_optuna_s_engine_and_ours(self, study: StoredStudy, database: Path) -> None:
        remove(database)
        with pytest.raises(VanishedError):
            Places.of(study).counts()
        with pytest.raises(VanishedError):
            study.optuna.get_trials()
        assert not database.exists(), "no connection makes a new one"

    def test_a_patient_request_does_not_wait(self, study: StoredStudy, database: Path) -> None:
        remove(database)
        with pytest.raises(VanishedError) as caught:
            Places.of(study.made_patient(Patience(lambda message: pytest.fail(message)))).counts()
        assert not is_transient(caught.value)

    def test_no_commit_is_made_after_it(self, study: StoredStudy, database: Path, tmp_path: Path) -> None:
        """What was begun before the file vanished is refused, not lost in silence."""

        def write(connection: Connection) -> None:
            connection.execute(text("UPDATE affinity_places SET value = 7"))
            remove(database)

        with pytest.raises(VanishedError):
            study.backend.transaction(write)
        assert 7 not in values(reopened(tmp_path / "studies.rescued.db"))

    def test_never_over_a_file_that_is_there(self, study: StoredStudy, database: Path, tmp_path: Path) -> None:
        (tmp_path / "studies.rescued.db").write_text("precious")
        remove(database)
        assert f"saved in {tmp_path / 'studies.rescued-2.db'}" in found_gone(study.backend)
        assert (tmp_path / "studies.rescued.db").read_text() == "precious"

    def test_a_copy_that_vanishes_too_is_saved_under_another_name(
        self, study: StoredStudy, database: Path, tmp_path: Path
    ) -> None:
        remove(database)
        found_gone(study.backend)
        copy = reopened(tmp_path / "studies.rescued.db")
        remove(tmp_path / "studies.rescued.db")
        assert f"saved in {tmp_path / 'studies.rescued-2.db'}" in found_gone(copy.backend)
        assert default_root(parse_url(f"sqlite:///{tmp_path / 'studies.rescued-2.db'}")) == tmp_path / "studies.files"

    def test_one_that_came_back_and_went_on_is_saved_again(
        self, study: StoredStudy, database: Path, sqlite_url: str, tmp_path: Path
    ) -> None:
        other, aside = open_backend(sqlite_url, create=False), tmp_path / "aside"
        aside.mkdir()
        for suffix in GONE:
            database.with_name(database.name + suffix).rename(aside / f"studies.db{suffix}")
        found_gone(other)
        for suffix in GONE:
            (aside / f"studies.db{suffix}").rename(database.with_name(database.name + suffix))
        train(study)
        done = values(study)
        remove(database)
        assert "studies.rescued-2.db" in found_gone(study.backend)
        assert values(reopened(tmp_path / "studies.rescued-2.db")) == done

    def test_nobody_else_may_read_it_if_nobody_might_read_the_first(
        self, database: Path, sqlite: Backend, sqlite_url: str, tmp_path: Path
    ) -> None:
        database.chmod(0o600)
        backend = open_backend(sqlite_url, create=False)
        remove(database)
        found_gone(backend)
        assert (tmp_path / "studies.rescued.db").stat().st_mode & 0o777 == 0o600

    def test_many_processes_make_one(self, study: StoredStudy, database: Path, tmp_path: Path) -> None:
        code = (
            "import sys; from affinity_search.storage.database.backend import open_backend\n"
            "from affinity_search.storage.errors import VanishedError\n"
            "backend = open_backend(sys.argv[1], create=False); print('open', flush=True); sys.stdin.readline()\n"
            "try: backend.check()\n"
            "except VanishedError as error: print(error)"
        )
        arguments = [sys.executable, "-c", code, f"sqlite:///{database}"]
        pipe = subprocess.PIPE
        several = [subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        for process in several:
            assert process.stdout
            assert process.stdout.readline() == "open\n"
        done = values(study)
        study.backend.close()
        remove(database)
        told = {process.communicate("\n", timeout=60)[0] for process in several}
        assert len(told) == 1
        assert [path.name for path in tmp_path.glob("*rescued*")] == ["studies.rescued.db"]
        assert values(reopened(tmp_path / "studies.rescued.db")) == done


class TestReaders:
    def test_status_watch_ends_with_the_line(
        self, study: StoredStudy, database: Path, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "affinity_search.search.view.terminal.PlainLines.show", lambda *args, **kwargs: remove(database)
        )
        monkeypatch.setattr("affinity_search.search.view.terminal.REFRESH_S", 0.0)
        ran = cli("status", "tiny", "--watch", "--storage", sqlite_url, fails=True)
        assert ran.code == Exit.VANISHED
        assert ran.err.count("\n") == 1
        assert ran.err.startswith(f"error: {database} was deleted")

    def test_the_dashboard_answers_with_the_line(
        self, study: StoredStudy, database: Path, sqlite_url: str, tmp_path: Path
    ) -> None:
        backend, said = open_backend(sqlite_url, create=False, read_only=True), list[str]()
        access = Access("127.0.0.1", 0, None)
        client = Client(guarded(reading_storage(backend), tmp_path, access, said.append, backend.check))
        assert client.get("/api/studies").status_code == 200
        remove(database)
        answers = [client.get("/api/studies") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert answers[0].text.startswith(f"{database} was deleted or moved away")
        assert len(said) == 1


def test_a_database_that_is_not_there_is_not_made_by_a_reader(sqlite_url: str, database: Path) -> None:
    with pytest.raises(NoDatabaseError):
        open_backend(sqlite_url, create=False)
    assert not database.exists()
