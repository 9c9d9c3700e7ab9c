"""One study, one set of images: where they are, what is in them, and who settles that."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from data_files import write_cifar, write_mnist
from making import TINY, make, open_study

from affinity_search.search.api.opening import Asked
from affinity_search.search.api.opening import open_study as open_asked
from affinity_search.search.training.data.splits import (
    Contents,
    contents_of,
    holdout,
    holdout_mistake,
    imbalance,
    load_test,
    load_train,
)
from affinity_search.search.training.errors import DataError
from affinity_search.search.worker.images import StudyImages, folder_for
from affinity_search.storage.database.backend import Backend, open_backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.study import history, load_study, study_names
from affinity_search.studies.data import SOURCES
from affinity_search.studies.errors import StudyFileError

ON_MNIST = ("--set", "data.set=mnist", "--set", "data.minority=3", "--set", "data.validation=0.2")
SETTINGS = tuple(part for part in ON_MNIST if part != "--set")


def even(n: int) -> np.ndarray:
    """Labels."""
    return (np.arange(n) % 10).astype(np.uint8)


@pytest.fixture
def m1(tmp_path: Path) -> Path:
    (tmp_path / "m1").mkdir()
    write_mnist(tmp_path / "m1", n=400, y_train=even(400), y_test=even(400))
    return tmp_path / "m1"


@pytest.fixture
def m2(tmp_path: Path) -> Path:
    """Another data set with the same file name."""
    (tmp_path / "m2").mkdir()
    write_mnist(tmp_path / "m2", n=400, y_train=np.arange(400, dtype=np.uint8)[::-1] // 40)
    return tmp_path / "m2"


class TestContent:
    def test_it_is_stored_with_the_study_by_who_reads_it_first(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, m1: Path
    ) -> None:
        cli("create", TINY, *ON_MNIST, "--data-dir", str(m1), "--storage", sqlite_url)
        study = load_study(sqlite, "tiny")
        assert study.data_dir == str(m1)
        known = Contents.from_dict(json.loads(study.train_data or ""))
        assert (known.shape, known.counts) == ((28, 28, 1), (40,) * 10)
        assert study.test_data is None, "holdout leaves it closed"
        assert any(event["text"].startswith("train images settled: 400 of 28×28×1") for event in history(study))

    def test_other_images_are_refused_and_nothing_changes(
        self, cli: Cli, sqlite: Backend, sqlite_url: str, m1: Path, m2: Path
    ) -> None:
        at = ("--storage", sqlite_url, "--data-dir")
        cli("create", TINY, *ON_MNIST, *at, str(m1))
        write_mnist(m2, n=410, y_train=even(410))
        ran = cli("launch", "tiny", "--trials", "9", *at, str(m2), fails=True)
        assert ran.code == 78
        assert ran.err.count("\n") == 1
        assert (
            "study 'tiny' has other mnist train images than those here: 41 images of class 0 instead of 40" in ran.err
        )
        assert "--name" in ran.err
        study = load_study(sqlite, "tiny")
        assert (study.spec.trials, Places.of(study).counts().total, study.data_dir) == (4, 4, str(m1))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                {"y_train": even(400)[::-1]},
                r"as many of each class, but not the same \(SHA-256",
            ),
            (
                {"x_train": np.zeros((400, 28, 28), np.uint8), "y_train": even(400)},
                "as many of each class, but not the same",
            ),
            (
                {"y_train": (np.arange(400) % 9).astype(np.uint8)},
                "45 images of class 0 instead of 40, .* and 7 classes more",
            ),
        ],
    )
    def test_every_worker_looks(self, backend: Backend, m1: Path, change: dict[str, np.ndarray], words: str) -> None:
        study, _ = open_study(backend, TINY, overrides=SETTINGS)
        assert study.train_data is None
        for _ in range(2):
            StudyImages(study, m1, print)("train", load_train(SOURCES["mnist"], m1))
        write_mnist(m1, n=400, **change)
        with pytest.raises(DataError, match=words):
            StudyImages(study, m1, print)("train", load_train(SOURCES["mnist"], m1))
        StudyImages(study, m1, print)("test", load_test(SOURCES["mnist"], m1))  # settled by itself

    def test_the_same_images_packed_otherwise_are_the_same(self, tmp_path: Path) -> None:
        arrays = write_mnist(tmp_path, n=40)
        before = contents_of(load_train(SOURCES["mnist"], tmp_path), 10)
        np.savez_compressed(
            tmp_path / "mnist.npz", **{name: np.asfortranarray(array) for name, array in arrays.items()}
        )
        assert contents_of(load_train(SOURCES["mnist"], tmp_path), 10) == before

    def test_a_study_of_an_earlier_version_goes_on(self, cli: Cli, sqlite: Backend, sqlite_url: str, m1: Path) -> None:
        study, _ = open_study(sqlite, TINY, overrides=SETTINGS)
        with sqlite.engine.begin() as connection:
            for column in ("data_dir", "train_data", "test_data"):
                connection.exec_driver_sql(f"ALTER TABLE affinity_studies DROP COLUMN {column}")
            connection.exec_driver_sql("UPDATE affinity_schema SET version = 2")
        cli("create", "tiny", "--data-dir", str(m1), "--storage", sqlite_url)
        with_content = load_study(sqlite, "tiny")
        assert with_content.train_data is not None
        assert with_content.fingerprint == study.fingerprint, "its scores stay comparable"


class TestFolder:
    def test_the_stored_one_is_the_default_and_the_option_goes_before_it(
        self, sqlite: Backend, m1: Path, m2: Path
    ) -> None:
        study, _ = open_asked(sqlite, Asked.of(TINY, None, SETTINGS, None, m1))
        said: list[str] = []
        assert folder_for(study.spec, None, study, said.append) == m1
        assert folder_for(study.spec, m2, study, said.append) == m2
        assert said == []

    def test_one_that_is_not_on_this_machine(self, sqlite: Backend, m1: Path, tmp_path: Path) -> None:
        study, _ = open_asked(sqlite, Asked.of(TINY, None, SETTINGS, None, m1))
        m1.rename(tmp_path / "moved")
        said: list[str] = []
        assert folder_for(study.spec, None, study, said.append) is None
        assert said == [
            f"the study's data folder {m1} is not here; reading Keras' own mnist (--data-dir names another folder)"
        ]

    def test_a_relative_one_is_stored_as_it_is_meant(
        self, sqlite: Backend, m1: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(m1.parent)
        study, _ = open_asked(sqlite, Asked.of(TINY, None, SETTINGS, None, Path("m1")))
        assert study.data_dir == str(m1)

    @pytest.mark.parametrize("command", [("launch", "--workers", "1"), ("create",), ("worker", "--device", "cpu")])
    def test_one_that_would_not_be_read_is_refused(self, cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
        ran = cli(
            *command, "digits", "--data-dir", str(tmp_path), "--storage", f"sqlite:///{tmp_path}/new.db", fails=True
        )
        assert f"--data-dir {tmp_path} has no effect: digits are part of scikit-learn" in ran.err
        assert (ran.code, list(tmp_path.iterdir())) == (1, [])

    def test_nor_does_doctor_accept_it(self, cli: Cli, sqlite: Backend, sqlite_url: str, tmp_path: Path) -> None:
        make(sqlite)
        ran = cli("doctor", "tiny", "--data-dir", str(tmp_path), "--storage", sqlite_url, fails=True)
        assert ran.code == 1
        assert "failed   data digits: --data-dir" in ran.err + ran.out


class TestNothingIsHalfCreated:
    @pytest.mark.parametrize("wrong", ["empty", "text", "truncated", "shapes", "few"])
    def test_of_wrong_data(self, cli: Cli, tmp_path: Path, wrong: str) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        if wrong != "empty":
            write_mnist(folder, n=30 if wrong == "few" else 400)
        file = folder / "mnist.npz"
        if wrong == "text":
            file.write_text("this is a text")
        elif wrong == "truncated":
            file.write_bytes(file.read_bytes()[:9000])
        elif wrong == "shapes":
            write_mnist(folder, x_train=np.zeros((40, 8, 8), np.uint8))
        ran = cli("launch", "mnist", "--data-dir", str(folder), "--storage", f"sqlite:///{tmp_path}/new.db", fails=True)
        assert ran.code == 78
        assert ran.err.count("\n") == 1
        assert "pickle" not in ran.err
        assert list(tmp_path.iterdir()) == [folder], "neither study nor database"

    def test_of_missing_batches(self, cli: Cli, sqlite: Backend, sqlite_url: str, tmp_path: Path) -> None:
        write_cifar(tmp_path, ["data_batch_1"])
        ran = cli("launch", "cifar10", "--data-dir", str(tmp_path), "--storage", sqlite_url, fails=True)
        assert "data_batch_2 and is not there" in ran.err
        assert study_names(sqlite) == []

    def test_of_a_share_too_small(self, cli: Cli, tmp_path: Path) -> None:
        few = ("--set", "data.minority=1", "--set", "data.validation=0.01")
        ran = cli("launch", "digits", *few, "--storage", f"sqlite:///{tmp_path}/new.db", fails=True)
        assert "Holding out 0.01 of 747 training images takes 8, and the smallest class has 4: some class " in ran.err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("minority", [1, 2, 3, 10, 30])
@pytest.mark.parametrize("fraction", [0.01, 0.02, 0.05, 0.1, 0.13, 0.2, 0.34, 0.5])
def test_the_division_is_foreseen(minority: int, fraction: float) -> None:
    """By the published counts as by the images."""
    mistake = holdout_mistake(SOURCES["digits"], minority, fraction)
    images = imbalance(load_train(SOURCES["digits"], None), 4 * minority, SOURCES["digits"])
    if mistake:
        with pytest.raises(DataError) as refused:
            holdout(images, fraction, seed=0)
        assert str(refused.value) == mistake
    else:
        for part in holdout(images, fraction, seed=0):
            assert min(part.counts(10)) > 0


def test_the_test_images_of_an_article_study_are_looked_at(sqlite: Backend, m1: Path) -> None:
    overrides = ("protocol=article", "data={set='mnist',minority=3}")
    study, _ = open_asked(sqlite, Asked.of(TINY, None, overrides, None, m1))
    assert study.train_data is not None
    assert study.test_data is not None


def test_an_empty_database_is_no_hindrance(tmp_path: Path) -> None:
    backend = open_backend(f"sqlite:///{tmp_path}/new.db", create=True)
    with pytest.raises(StudyFileError, match="has no effect"):
        open_asked(backend, Asked.of("digits", None, None, None, tmp_path))
    assert study_names(backend) == []
