"""Checkpoints: written whole or not at all, read with suspicion, and taken up where the last worker left off."""

import contextlib
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Start, Started
from fake_objective import fake_scores
from making import make, train, worker_for
from optuna.trial import TrialState
from waiting import until

from affinity_search.search.training.checkpoints import TrainingState, load, save
from affinity_search.search.training.errors import CheckpointError
from affinity_search.search.training.results import EpochScore
from affinity_search.search.worker import checkpointing
from affinity_search.search.worker.checkpointing import Checkpointer
from affinity_search.search.worker.exits import Exit
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.database.tables import PlaceState
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts

IDENTITY = {"params": {"lambda": 0.1, "sigma": 10.0, "n_centers": 3}, "seed": 7}


def state(epochs: int = 2, size: int = 10) -> TrainingState:
    scored = tuple(EpochScore(number, 0.5, fake_scores(0.1 * number), 1.5) for number in range(epochs))
    return TrainingState(scored, {"conv/kernel": np.arange(size, dtype="float32"), "adam/iteration": np.array(12)})


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token" / "checkpoints" / "3.npz"


class TestTheFile:
    def test_what_was_saved_comes_back(self, path: Path) -> None:
        save(path, state(), IDENTITY)
        found = load(path, IDENTITY)
        assert found is not None
        assert found.epochs == state().epochs
        assert list(found.variables) == list(state().variables)
        for name, value in state().variables.items():
            assert (found.variables[name] == value).all()
            assert found.variables[name].dtype == value.dtype
        assert names(path.parent) == ["3.npz"], "nothing unfinished is left"

    def test_none_is_there(self, path: Path) -> None:
        assert load(path, IDENTITY) is None

    @pytest.mark.parametrize("length", [0, 10, 400, -30])
    def test_a_file_cut_short(self, path: Path, length: int) -> None:
        save(path, state(), IDENTITY)
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(path, IDENTITY)

    def test_a_flipped_bit(self, path: Path) -> None:
        save(path, state(size=1000), IDENTITY)
        damaged = bytearray(path.read_bytes())
        at = damaged.find(np.arange(500, 510, dtype="float32").tobytes())
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(path, IDENTITY)

    def test_a_pickle_is_not_opened(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            np.savez(file, header=np.array([{"format": 1}], dtype=object))
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(path, IDENTITY)

    def test_another_trial_s(self, path: Path) -> None:
        save(path, state(), IDENTITY)
        with pytest.raises(CheckpointError, match="other parameters"):
            load(path, IDENTITY | {"seed": 8})

    def test_another_format(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            np.savez(file, header=np.array(json.dumps({"format": 99})))
        with pytest.raises(CheckpointError, match="format 99"):
            load(path, IDENTITY)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("a file is in the way")
        with pytest.raises(CheckpointError, match=r"3\.npz cannot be written"):
            save(tmp_path / "token" / "checkpoints" / "3.npz", state(), IDENTITY)


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """The kernel refuses this process files of more than 4 kB, as a full disk would.

    No fixture: it must end before pytest writes its next dot, perhaps into a log file that is longer already.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)


def test_a_full_disk_keeps_the_former_checkpoint_and_is_told_once(path: Path) -> None:
    said: list[str] = []
    keeper = Checkpointer(path, IDENTITY, said.append)
    keeper.keep(state(1))
    keeper.write()
    with small_files():
        for epochs in (2, 3):
            keeper.keep(state(epochs, size=10_000))
            keeper.write()
    (line,) = said
    assert f"{path} cannot be written (File too large); training goes on" in line
    assert names(path.parent) == ["3.npz"]
    found = load(path, IDENTITY)
    assert found is not None
    assert len(found.epochs) == 1


class TestWhenToWrite:
    def test_not_before_its_cost_is_little_of_the_time(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now)
        keeper = Checkpointer(path, IDENTITY, print)
        keeper.keep(state(1))
        assert not path.exists()
        now += checkpointing.WRITES_SHARE * checkpointing.FIRST_COST_S
        keeper.keep(state(2))
        assert len((load(path, IDENTITY) or state(0)).epochs) == 2

    def test_an_epoch_that_is_on_disk_is_not_written_again(self, path: Path) -> None:
        keeper = Checkpointer(path, IDENTITY, print)
        keeper.keep(state(1))
        keeper.write()
        before = path.stat().st_ino
        keeper.write()
        assert path.stat().st_ino == before


class TestPlaces:
    """Where the files lie, and when they go."""

    def test_beside_the_sqlite_file_under_the_token(self, sqlite: Backend, tmp_path: Path) -> None:
        study = make(sqlite, name="a b '☃")
        files = StudyFiles(default_root(sqlite.url), study.token)
        assert files.checkpoint(2) == tmp_path / "studies.files" / study.token / "checkpoints" / "2.npz"

    def test_a_sweep_takes_what_used_places_left(self, tmp_path: Path) -> None:
        files = StudyFiles(tmp_path, "token")
        files.checkpoints.mkdir(parents=True)
        for name in ("1.npz", "1.npz.0badcafe", "11.npz", "2.npz"):
            (files.checkpoints / name).touch()
        files.sweep([1, 3])
        assert names(files.checkpoints) == ["11.npz", "2.npz"]


class TestGoingOn:
    """A worker asked to stop after its first epoch, and whoever takes its place up."""

    @pytest.fixture
    def study(self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredStudy:
        monkeypatch.setenv("AFFINITY_SEARCH_FILES", str(tmp_path / "files"))
        return make(backend, trials=1, overrides=["training.epochs=4"])

    @pytest.fixture
    def stopped(self, study: StoredStudy, database_url: str, start: Start, tmp_path: Path) -> Started:
        options = {"AFFINITY_SEARCH_STORAGE": database_url, "FAKE_GATE": str(tmp_path / "gate")}
        worker = start("worker", "tiny", "--device", "cpu", **options)
        until(lambda: any(t.intermediate_values for t in study.optuna.get_trials()), "the first epoch")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended() == Exit.STOPPED, worker.said
        return worker

    @pytest.fixture
    def checkpoint(self, study: StoredStudy, tmp_path: Path) -> Path:
        return StudyFiles(tmp_path / "files", study.token).checkpoint(0)

    def finish(self, study: StoredStudy, database_url: str, start: Start) -> Started:
        worker = start("worker", "tiny", "--device", "cpu", AFFINITY_SEARCH_STORAGE=database_url)
        assert worker.ended() == 0, worker.said
        trials = study.optuna.get_trials()
        assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.COMPLETE]
        assert trials[0].params == trials[1].params
        assert sorted(trials[1].intermediate_values) == [0, 1, 2, 3], "the epochs of both attempts reach the new trial"
        return worker

    @pytest.mark.usefixtures("stopped")
    def test_from_the_last_finished_epoch(
        self, study: StoredStudy, database_url: str, start: Start, checkpoint: Path
    ) -> None:
        assert checkpoint.exists()
        worker = self.finish(study, database_url, start)
        assert TrialFacts.of(study.optuna.get_trials()[1]).resumed_epochs == 1
        assert "epoch 1/4" not in worker.said
        assert "epoch 2/4" in worker.said
        assert not checkpoint.exists(), "the trial has ended"
        trials = study.optuna.get_trials()
        assert TrialFacts.of(trials[0]).cause == "preempted", "recorded apart from a crash"
        assert TrialFacts.of(trials[1]).attempt == 1, "no attempt is counted"

    @pytest.mark.usefixtures("stopped")
    def test_a_damaged_file_means_afresh_with_one_warning(
        self, study: StoredStudy, database_url: str, start: Start, checkpoint: Path
    ) -> None:
        checkpoint.write_bytes(b"not a checkpoint")
        worker = self.finish(study, database_url, start)
        assert worker.said.count("from its first epoch") == 1
        assert f"the checkpoint {checkpoint} is not used: it cannot be read" in worker.said
        assert "epoch 1/4" in worker.said
        assert TrialFacts.of(study.optuna.get_trials()[1]).resumed_epochs is None

    @pytest.mark.usefixtures("stopped")
    def test_a_missing_file_means_afresh_with_one_warning(
        self, study: StoredStudy, database_url: str, start: Start, checkpoint: Path, tmp_path: Path
    ) -> None:
        checkpoint.rename(tmp_path / "elsewhere")
        worker = self.finish(study, database_url, start)
        assert worker.said.count("from its first epoch") == 1
        assert f"no checkpoint {checkpoint}; give all machines the same --files folder" in worker.said
        assert "had trained 1 epochs" in worker.said


@pytest.mark.usefixtures("fake_training")
def test_a_checkpoint_of_a_used_place_is_swept_by_the_next_worker(sqlite: Backend, start: Start) -> None:
    study = make(sqlite)
    train(study, most=1)
    files = worker_for(study).files
    save(files.checkpoint(0), state(), IDENTITY)
    save(files.checkpoint(1), state(), IDENTITY)
    worker = start("worker", "tiny", "--device", "cpu", "--storage", str(sqlite), FAKE_DEAD="")
    assert worker.ended() == 0, worker.said
    assert Places.of(study).rows()[1].state == PlaceState.COMPLETE
    assert names(files.checkpoints) == []
    assert "is not used: it is of other parameters" in worker.said
