"""A study of a person's own images: from files to splits, on this machine and on another."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from PIL import Image

from affinity_search.search.api.opening import Asked
from affinity_search.search.api.opening import open_study as open_asked
from affinity_search.search.training.data.splits import load_test, load_train, search_splits
from affinity_search.search.training.errors import DataError
from affinity_search.search.worker.images import StudyImages, examine, folder_for, refuse_too_large, with_found
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.errors import StudyMismatchError
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import StudySpec, fingerprint

STUDY = """
trials = 2

[data]
set = "folder"
path = "cells"
size = [6, 8]
{data}

[network]
widths = [4]

[training]
epochs = 1
batch = 8
"""
COUNTS = {"red": 40, "white": 12, "blue": 20}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(tmp_path / "cache"))


def write_images(root: Path, counts: dict[str, int], *, photographs: int = 4, seed: int = 0) -> None:
    """Images of noise, called PHOTOGRAPH-NUMBER.png."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (9, 12, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number % photographs}-{number:03}.png")


def study_file(folder: Path, data: str = "", text: str = STUDY) -> Path:
    file = folder / "cells.toml"
    file.write_text(text.format(data=data))
    return file


def settled(file: Path) -> StudySpec:
    spec = load(str(file))
    return with_found(spec, folder_for(spec, None, None, print))


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    write_images(tmp_path / "cells", COUNTS)
    return tmp_path


def test_what_is_found_stands_in_the_definition(cells: Path) -> None:
    spec = settled(study_file(cells))
    found = spec.data.found
    assert found is not None
    assert (found.classes, found.shape) == (("blue", "red", "white"), (6, 8, 3))
    # A fifth of each class is kept for the test.
    assert (found.train, found.test, found.validation) == ((16, 32, 9), (4, 8, 3), ())
    assert not found.test_given
    assert spec.data.source.train == found.train
    assert StudySpec.from_dict(spec.to_dict()) == spec


def test_where_they_lie_does_not_matter_and_what_they_are_does(cells: Path, tmp_path: Path) -> None:
    spec = settled(study_file(cells))
    (tmp_path / "other").mkdir()
    shutil.copytree(cells / "cells", tmp_path / "other" / "cells")
    elsewhere = settled(study_file(tmp_path / "other"))
    assert elsewhere.data.path != spec.data.path
    assert fingerprint(elsewhere, "float32") == fingerprint(spec, "float32")
    one = next((tmp_path / "other" / "cells" / "red").iterdir())
    Image.new("RGB", (12, 9), "red").save(one)
    assert fingerprint(settled(study_file(tmp_path / "other")), "float32") != fingerprint(spec, "float32")


def test_parts_are_of_each_class_alike_and_share_no_image(cells: Path) -> None:
    spec = settled(study_file(cells))
    place = Path(str(spec.data.path))
    test = load_test(spec.data.source, place)
    draws = [search_splits(spec.data.source, None, 0.25, "holdout", 0, place, draw=draw) for draw in (0, 1)]
    for train, held in draws:
        assert all(abs(count - 0.75 * n) <= 1 for count, n in zip(train.counts(3), (16, 32, 9), strict=True))
        parts = [{image.tobytes() for image in part.images} for part in (train, held, test)]
        assert sum(map(len, parts)) == sum(COUNTS.values())
        assert len(set.union(*parts)) == sum(COUNTS.values()), "no image is in two parts"
        assert train.minority == (False, False, True), "white has less than half of an equal share"
    assert draws[0][0].images.shape[0] == draws[1][0].images.shape[0]
    assert not np.array_equal(draws[0][0].images, draws[1][0].images)


def test_a_group_stays_in_one_part_in_every_draw(tmp_path: Path) -> None:
    write_images(tmp_path / "cells", {"red": 60, "white": 30}, photographs=15)
    spec = settled(study_file(tmp_path, "group = '^[0-9]+'"))
    place = Path(str(spec.data.path))
    test = load_test(spec.data.source, place)
    assert test.groups is not None
    for draw in range(4):
        train, held = search_splits(spec.data.source, None, 0.25, "holdout", 0, place, draw=draw)
        sets = [set(part.groups.tolist()) for part in (train, held, test) if part.groups is not None]
        assert sum(map(len, sets)) == 15 == len(set.union(*sets))
        assert len(train) + len(held) + len(test) == 90


def test_given_parts_are_used(tmp_path: Path) -> None:
    for seed, (part, count) in enumerate({"train": 10, "validation": 3, "test": 4}.items()):
        write_images(tmp_path / "cells" / part, {"a": count, "b": 2 * count}, seed=seed)
    spec = settled(study_file(tmp_path))
    found = spec.data.found
    assert found is not None
    assert (found.train, found.validation, found.test) == ((10, 20), (3, 6), (4, 8))
    place = Path(str(spec.data.path))
    for draw in (0, 1):
        train, held = search_splits(spec.data.source, None, 0.2, "holdout", 0, place, draw=draw)
        assert (train.counts(2), held.counts(2)) == ((10, 20), (3, 6))
    with pytest.raises(StudyFileError, match=r"data\.test: 0\.3 given; allowed: nothing"):
        settled(study_file(tmp_path, "test = 0.3"))


@pytest.mark.parametrize(
    ("data", "kept", "small"),
    [
        ('profile = "step"\nminority = 5\nsmall = ["red", 0]', (5, 5, 9), (True, True, False)),
        ('profile = "exponential"\nimbalance_factor = 8', (11, 32, 4), (False, False, True)),
        ("", (16, 32, 9), (False, False, True)),
    ],
)
def test_profiles(cells: Path, data: str, kept: tuple[int, ...], small: tuple[bool, ...]) -> None:
    spec = settled(study_file(cells, data))
    train, held = search_splits(
        spec.data.source, spec.data.minority, 0.25, "holdout", 0, Path(str(spec.data.path)), draw=2
    )
    assert tuple(np.add(train.counts(3), held.counts(3))) == kept
    assert train.minority == held.minority == small


def test_a_class_too_small_for_a_division_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "cells", {"red": 40, "white": 2})
    spec = load(str(study_file(tmp_path)))
    with pytest.raises(DataError, match=r"smallest class has 2|white"):
        examine(with_found(spec, folder_for(spec, None, None, print)), tmp_path / "cells", None)


def test_a_worker_elsewhere_with_other_images_refuses_in_one_line(cells: Path, tmp_path: Path, sqlite: Backend) -> None:
    study, _ = open_asked(sqlite, Asked.of(str(study_file(cells)), None, None, None))
    other = tmp_path / "there" / "cells"
    write_images(other, COUNTS, seed=1)
    images = StudyImages(study, tmp_path / "there", print)
    assert images.folder == other
    with pytest.raises(DataError, match="has other cells train images than those here") as caught:
        images("train", load_train(study.spec.data.source, images.folder))
    assert "\n" not in str(caught.value)
    shutil.move(str(cells / "cells"), str(tmp_path / "moved"))
    again = StudyImages(study, tmp_path / "moved", print)
    again("train", load_train(study.spec.data.source, again.folder))


def test_a_file_over_other_images_is_another_study(cells: Path, sqlite: Backend) -> None:
    file = study_file(cells)
    open_asked(sqlite, Asked.of(str(file), None, None, None))
    open_asked(sqlite, Asked.of(str(file), None, None, None))
    write_images(cells / "cells", {"green": 30})
    with pytest.raises(StudyMismatchError, match=r"data.found.classes: stored"):
        open_asked(sqlite, Asked.of(str(file), None, None, None))


def test_missing_images_are_told_before_anything_is_stored(tmp_path: Path, cli: Cli, sqlite_url: str) -> None:
    ran = cli("create", str(study_file(tmp_path)), "--storage", sqlite_url, fails=True)
    assert ran.code != 0
    assert str(tmp_path / "cells") in ran.err
    assert "--data-dir" in ran.err
    assert "Traceback" not in ran.err


def test_images_that_do_not_fit_the_device(cells: Path) -> None:
    spec = settled(study_file(cells))
    refuse_too_large(spec, 70, 100, "gpu:0")
    with pytest.raises(DataError, match=r"take 100 MiB on gpu:0, where 100 MiB are free.*data.size = \[5, 6\] would"):
        refuse_too_large(spec, 100 << 20, 100 << 20, "gpu:0")


def test_old_definitions_are_as_they_were(sqlite: Backend) -> None:
    study, _ = open_asked(sqlite, Asked.of("mnist", None, None, None))
    assert study.spec.to_dict()["data"] == {"set": "mnist", "minority": 10, "validation": 0.2}
    same = load("mnist", ["data.profile=step", "data.small=even"])
    assert fingerprint(same, "float32") == fingerprint(study.spec, "float32")
    other = load("mnist", ["data.small=[1, 3]"])
    assert fingerprint(other, "float32") != fingerprint(study.spec, "float32")
    assert other.data.source.small == tuple(label in (1, 3) for label in range(10))
    assert replace(other.data.source, small=None) == study.spec.data.source


def test_init_looks_and_writes_a_file_that_trains(cells: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (cells / "cells" / "red" / "notes.txt").write_text("no image")
    (cells / "cells" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(next((cells / "cells" / "blue").iterdir()), cells / "cells" / "white" / "9-999.png")
    monkeypatch.chdir(cells)
    ran = cli("init", "cells")
    told = " ".join((ran.out + ran.err).split())
    for words in ("blue 16 4 9 12", "fewer than 20 images to train on: blue (16), white (10)", "red/broken.png"):
        assert words in told
    assert "equal images in different classes" in told
    assert "file names have 5 beginnings" in told
    assert "next: affinity-search compare cells.toml" in told
    spec = settled(cells / "cells.toml")
    assert spec.data.size == (8, 8)
    assert (cells / "cells.toml").read_text().count('path = "cells"') == 1, "it may move with its images"
    strict = cli("init", "cells", "-o", "other.toml", "--strict", fails=True)
    assert strict.code != 0
    assert "red/broken.png" in strict.err
    assert not (cells / "other.toml").exists()
    assert "is there already" in cli("init", "cells", fails=True).err
    cli("studies", "show", "cells.toml")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "no"),
        (lambda root: root.write_bytes(b"PK"), "folder"),
        (lambda root: write_images(root, {"only": 9}), "only"),
        (lambda root: (root / "a").mkdir(parents=True), "a"),
    ],
)
def test_init_refuses_in_words(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, make, words: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "cells")
    ran = cli("init", "cells", fails=True)
    assert ran.code != 0
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "cells.toml").exists()


def test_doctor_reads_them(cells: Path, cli: Cli, sqlite_url: str) -> None:
    cli("create", str(study_file(cells)), "--storage", sqlite_url)
    told = cli("doctor", "cells", "--storage", sqlite_url, fails=True).out
    assert "45 training and 12 validation images, read from" in " ".join(told.split())
    shutil.move(str(cells / "cells"), str(cells / "moved"))
    assert "failed   data folder" in cli("doctor", "cells", "--storage", sqlite_url, fails=True).out
    told = cli("doctor", "cells", "--storage", sqlite_url, "--data-dir", str(cells / "moved"), fails=True).out
    assert "ok       data folder" in told
