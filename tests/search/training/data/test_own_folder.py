"""Classes, parts and groups by folders and names, and all that may be wrong with them."""

import os
import tarfile
import zipfile
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from own_files import BLUE, GREEN, RED, SMALL, put, two_classes

from affinity_search.search.training.data.own import folder as reading
from affinity_search.search.training.data.own import read_folder
from affinity_search.search.training.errors import DataError, MissingDataError


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def refusal(root, wanted=SMALL):
    with pytest.raises(DataError) as refused:
        read_folder(root, wanted)
    first, *lines = str(refused.value).splitlines()
    assert first == f"{root} cannot be used as it is:"
    return [line.strip() for line in lines]


def test_classes_are_the_folders(tmp_path):
    put(tmp_path / "dog" / "2.png", RED)
    put(tmp_path / "dog" / "1.png", GREEN)
    put(tmp_path / "cat" / "kittens" / "small" / "9.png", BLUE)
    put(tmp_path / "cat" / "z.png", RED)
    found = read_folder(tmp_path, SMALL)
    assert found.classes == ("cat", "dog")
    assert found.names == ("cat/kittens/small/9.png", "cat/z.png", "dog/1.png", "dog/2.png")
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert [tuple(image[0, 0].tolist()) for image in found.images] == [BLUE, RED, GREEN, RED]
    assert (found.images.dtype, found.labels.dtype, found.parts.dtype) == (np.uint8, np.int32, np.uint8)
    assert (found.parts.tolist(), found.groups, found.skipped, len(found)) == ([0, 0, 0, 0], None, (), 4)


def test_order_does_not_follow_the_disk(tmp_path, monkeypatch):
    for number in range(30):
        put(tmp_path / "ab"[number % 2] / f"{number:02}.png", (number, 0, 1))
    found = read_folder(tmp_path, SMALL)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as listing:
                self.entries = list(listing)[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    again = read_folder(tmp_path, SMALL)
    assert again.names == found.names
    assert (again.images == found.images).all()
    assert found.images[:, 0, 0, 0].tolist() == [*range(0, 30, 2), *range(1, 30, 2)]


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "val", "TEST"), (None, "valid", "test")]
)
def test_parts_are_kept(tmp_path, names):
    expected = {}
    for part, name in enumerate(names):
        if name:
            for each in "ab" if part < 2 else "bc":
                put(tmp_path / name / each / "1.png", (part, 5, 0))
                expected[f"{name}/{each}/1.png"] = (part, each)
    found = read_folder(tmp_path, SMALL)
    assert found.classes == ("a", "b", "c"), "those of all parts"
    classes = [found.classes[label] for label in found.labels]
    assert dict(zip(found.names, zip(found.parts.tolist(), classes, strict=True), strict=True)) == expected
    assert found.images[:, 0, 0, 0].tolist() == found.parts.tolist()


def test_a_class_may_be_called_as_a_part(tmp_path):
    for name in ("bus", "train", "test"):
        put(tmp_path / name / "1.png")
    assert read_folder(tmp_path, SMALL).classes == ("bus", "test", "train")


def test_a_part_that_looks_like_a_class_is_not_guessed_at(tmp_path):
    two_classes(tmp_path / "train")
    put(tmp_path / "test" / "unlabelled.png")
    put(tmp_path / "extra" / "1.png")
    assert refusal(tmp_path)[0] == "beside test, train there are other folders: extra; move them elsewhere"


def test_an_empty_folder_of_a_class_in_one_part_is_none_missing(tmp_path):
    two_classes(tmp_path / "train")
    put(tmp_path / "test" / "a" / "1.png")
    (tmp_path / "test" / "b").mkdir()
    assert read_folder(tmp_path, SMALL).labels.tolist() == [0, 0, 1]


def test_hidden_and_system_files_are_nothing(tmp_path):
    two_classes(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "._1.png", "desktop.ini", ".ipynb_checkpoints/1.png"):
        put(tmp_path / "a" / name, format="PNG")
        put(tmp_path / name, format="PNG")
    put(tmp_path / "__MACOSX" / "a" / "1.png")
    found = read_folder(tmp_path, SMALL)
    assert (found.names, found.skipped) == (("a/1.png", "b/1.png"), ())


def test_other_files_are_listed(tmp_path):
    two_classes(tmp_path / "train")
    for name in ("labels.csv", "train/readme.txt", "train/a/more.zip"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    skipped = read_folder(tmp_path, SMALL).skipped
    assert skipped == tuple(
        (name, "not a JPEG, PNG, BMP, WebP or TIFF") for name in ("labels.csv", "train/a/more.zip", "train/readme.txt")
    )


def test_all_problems_come_at_once(tmp_path):
    put(tmp_path / "x.png")
    put(tmp_path / "y.jpg")
    put(tmp_path / "a" / "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_text("text", encoding="utf-8")
    assert refusal(tmp_path) == [
        "beside the class folders, there are 2 images: x.png, y.jpg; move each into the folder of its class",
        "class empty has no images",
        "class bad has no images that can be read",
    ]


def test_a_class_of_damaged_images_is_found_too(tmp_path):
    two_classes(tmp_path)
    path = put(tmp_path / "c" / "1.png", size=(64, 64))
    path.write_bytes(path.read_bytes()[:60])
    unreadable, strict, group = refusal(tmp_path, replace(SMALL, strict=True, group=r"^\D+$"))
    assert unreadable == "class c has no images that can be read"
    assert strict.startswith("c/1.png: damaged or not whole (")
    assert group == r"group: '^\\D+$' is not found in 2 file names: 1.png, 1.png"


def test_one_class_is_none(tmp_path):
    put(tmp_path / "only" / "1.png")
    assert refusal(tmp_path) == ["there is one class only, only; a network learns to tell at least two apart"]


def test_one_folder_too_far_up(tmp_path):
    two_classes(tmp_path / "set")
    assert refusal(tmp_path)[0].endswith("; if its folders are the classes, give set instead")


@pytest.mark.parametrize("names", [(), ("1.png", "2.png")])
def test_no_class_folders(tmp_path, names):
    for name in names:
        put(tmp_path / name)
    assert refusal(tmp_path)[-1].startswith("there are no class folders")


def test_parts_and_other_folders_do_not_mix(tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "val")
    two_classes(tmp_path / "valid")
    two_classes(tmp_path / "extra")
    put(tmp_path / "val" / "lost.png")
    assert refusal(tmp_path) == [
        "beside train, val, valid there are other folders: extra; move them elsewhere",
        "val, valid are folders of the same part; put them into one",
        "in val/, beside the class folders, there is 1 image: lost.png; move each into the folder of its class",
    ]


def test_no_folder(tmp_path):
    with pytest.raises(MissingDataError, match="no such folder"):
        read_folder(tmp_path / "nowhere", SMALL)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set"])
def test_an_archive_must_be_unpacked(tmp_path, name):
    image = put(tmp_path / "1.png")
    if name == "set.tar.gz":
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            tar.add(image)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(image)
    with pytest.raises(DataError, match="is an archive; unpack it"):
        read_folder(tmp_path / name, SMALL)


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"1\.png is a file; give the folder"):
        read_folder(put(tmp_path / "1.png"), SMALL)


def test_links_are_followed_without_end(tmp_path):
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    two_classes(root)
    put(elsewhere / "c" / "1.png", BLUE)
    (root / "c").symlink_to(elsewhere / "c")
    (root / "a" / "2.png").symlink_to(elsewhere / "c" / "1.png")
    (root / "a" / "round").symlink_to(root / "a")
    (root / "b" / "broken.png").symlink_to(root / "gone.png")
    (root / "b" / "self.png").symlink_to(root / "b" / "self.png")
    found = read_folder(root, SMALL)
    assert found.names == ("a/1.png", "a/2.png", "b/1.png", "c/1.png")
    assert dict(found.skipped) == {
        "a/round": "a link to a folder that it lies in",
        "b/broken.png": "a link that leads nowhere",
        "b/self.png": "a link that leads nowhere",
    }


def test_two_links_that_lead_to_each_other(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "a" / "to b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to a").symlink_to(tmp_path / "a")
    found = read_folder(tmp_path, SMALL)
    assert found.names == ("a/1.png", "a/to b/1.png", "b/1.png", "b/to a/1.png")
    assert {reason for _, reason in found.skipped} == {"a link to a folder that it lies in"}


def test_a_loop_further_down(tmp_path):
    two_classes(tmp_path)
    put(tmp_path / "a" / "below" / "2.png")
    (tmp_path / "a" / "below" / "round").symlink_to(tmp_path / "a" / "below")
    found = read_folder(tmp_path, SMALL)
    assert found.names == ("a/1.png", "a/below/2.png", "b/1.png")
    assert found.skipped == (("a/below/round", "a link to a folder that it lies in"),)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    two_classes(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert read_folder(tmp_path, SMALL).skipped == (("a/pipe.png", "not a regular file"),)


def test_names_may_be_anything(tmp_path):
    two_classes(tmp_path)
    put(tmp_path / "ein Käfer 甲虫" / "mit Leer zeichen.png", BLUE)
    decomposed = tmp_path / "b" / "e\u0301.png"
    put(decomposed)
    raw = os.fsencode(tmp_path / "a") + b"/\xff\xfe.png"
    with open(raw, "wb") as file:  # noqa: PTH123 - no text
        file.write((tmp_path / "a" / "1.png").read_bytes())
    found = read_folder(tmp_path, replace(SMALL, group="."))
    assert found.names == ("a/1.png", r"a/\xff\xfe.png", "b/1.png", "b/é.png", "ein Käfer 甲虫/mit Leer zeichen.png")
    assert found.skipped == ()
    for name in found.names:
        name.encode()


def test_one_class_however_its_name_is_written(tmp_path):
    put(tmp_path / "train" / "\u00e9" / "1.png")
    put(tmp_path / "test" / "e\u0301" / "1.png")
    put(tmp_path / "train" / "b" / "1.png")
    assert read_folder(tmp_path, SMALL).classes == ("b", "\u00e9")


def test_a_file_that_cannot_be_read_is_skipped(tmp_path, monkeypatch, tmp_path_factory):
    two_classes(tmp_path)
    put(tmp_path / "a" / "2.png")
    read = open

    def refusing(path, *arguments, **options):
        if str(path).endswith("2.png"):
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **options)

    kept = tmp_path_factory.mktemp("kept")
    monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(kept))
    monkeypatch.setattr(reading, "open", refusing, raising=False)
    assert read_folder(tmp_path, SMALL).skipped == (("a/2.png", "cannot be read (Permission denied)"),)
    assert list(kept.rglob("*")) == [], "perhaps it can be read the next time"
    monkeypatch.setattr(reading, "open", read)
    assert len(read_folder(tmp_path, SMALL)) == 3


@pytest.mark.parametrize(
    ("expression", "groups"),
    [(r"^.{2}", [0, 1, 0, 2]), (r"^(\w)\w-(\d)", [0, 1, 0, 1]), (r"\d", [0, 0, 1, 1])],
)
def test_groups_are_equal_matches_in_all_classes_and_parts(tmp_path, expression, groups):
    for name in ("test/x/aa-1", "test/x/bb-1", "train/y/aa-2", "train/y/bc-2"):
        put(tmp_path / f"{name}.png")
    found = read_folder(tmp_path, replace(SMALL, group=expression))
    assert found.groups.tolist() == groups
    assert found.groups.dtype == np.int32


def test_folders_below_a_class_may_be_groups(tmp_path):
    for name in ("a/p1/1", "a/p2/1", "b/p1/7"):
        put(tmp_path / f"{name}.png")
    assert read_folder(tmp_path, replace(SMALL, group="^[^/]+")).groups.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("(", "group: '(' is not a regular expression: "),
        ("^x", "group: '^x' is not found in 2 file names: 1.png, 1.png"),
        ("1|(x)", "group: '1|(x)' is not found in 2 file names: 1.png, 1.png"),
    ],
)
def test_a_group_that_does_not_fit(tmp_path, expression, told):
    assert refusal(two_classes(tmp_path), replace(SMALL, group=expression))[0].startswith(told)


def test_progress_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PROGRESS_S", 0)
    for number in range(20):
        put(tmp_path / "ab"[number % 2] / f"{number}.png")
    for _ in range(2):  # decoded, and from the cache
        told = Mock()
        read_folder(tmp_path, SMALL, told)
        assert [call.args for call in told.call_args_list] == [(done, 20) for done in range(1, 21)]


def test_an_error_in_progress_ends_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PROGRESS_S", 0)
    two_classes(tmp_path)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_folder(tmp_path, SMALL, stop)


def test_memory_that_does_not_suffice(tmp_path, monkeypatch):
    def out_of_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr(reading, "decode", out_of_memory)
    with pytest.raises(DataError, match="2 images of 8×8 pixels do not fit into memory"):
        read_folder(two_classes(tmp_path), SMALL)
