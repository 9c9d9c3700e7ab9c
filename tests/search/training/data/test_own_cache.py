"""What was decoded once is kept by its contents, and never decides anything."""

import os
import stat
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from own_files import BLUE, GREEN, RED, SMALL, noise, put, put_array, two_classes

from affinity_search.search.training.data.own import Wanted, cache, read_folder
from affinity_search.search.training.data.own import folder as reading


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path_factory):
    """The cache's folder, which nobody has made yet."""
    folder = tmp_path_factory.mktemp("home") / "cache"
    monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(folder))
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """Counts what is decoded."""
    calls = []
    decode = reading.decode

    def counting(*arguments):
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(reading, "decode", counting)
    return calls


def no_decoder(monkeypatch):
    def refusing(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(reading, "decode", refusing)


def same(one, other):
    assert one.images.dtype == other.images.dtype
    assert np.array_equal(one.images, other.images)
    assert (one.names, one.skipped, one.classes) == (other.names, other.skipped, other.classes)
    assert (one.labels.tolist(), one.parts.tolist()) == (other.labels.tolist(), other.parts.tolist())


def test_the_second_time_nothing_is_decoded(tmp_path, monkeypatch, kept):
    for number in range(40):
        put_array(tmp_path / ("test", "train")[number % 2] / "abc"[number % 3] / f"{number}.png", noise(number))
    (tmp_path / "test" / "a" / "0.jpg").write_text("text", encoding="utf-8")
    first = read_folder(tmp_path, SMALL)
    assert sorted(path.suffix for path in kept.iterdir()) == [".json", ".npy"]
    no_decoder(monkeypatch)
    same(read_folder(tmp_path, SMALL), first)
    assert first.skipped


def test_a_folder_that_moved_is_known(tmp_path, monkeypatch):
    first = read_folder(two_classes(tmp_path / "here"), SMALL)
    (tmp_path / "here").rename(tmp_path / "there")
    no_decoder(monkeypatch)
    same(read_folder(tmp_path / "there", SMALL), first)


def test_groups_and_strictness_are_nothing_to_decode(tmp_path, monkeypatch):
    read_folder(two_classes(tmp_path), SMALL)
    no_decoder(monkeypatch)
    assert read_folder(tmp_path, replace(SMALL, group="1", strict=True)).groups.tolist() == [0, 0]


def test_a_changed_file_is_decoded_again(tmp_path, kept):
    """Also one of the same size and time."""
    path = put_array(tmp_path / "a" / "1.bmp", noise(1))
    put(tmp_path / "b" / "1.png")
    read_folder(tmp_path, SMALL)
    before = path.stat()
    put_array(path, noise(2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert (read_folder(tmp_path, SMALL).images[0] == noise(2)).all()
    put_array(path, noise(1))
    assert (read_folder(tmp_path, SMALL).images[0] == noise(1)).all()
    assert len(list(kept.glob("*.npy"))) == 2, "both are kept"


def test_other_names_and_sizes_are_decoded_again(tmp_path, decoded):
    read_folder(two_classes(tmp_path), SMALL)
    assert len(decoded) == 2
    read_folder(tmp_path, Wanted((4, 8)))
    read_folder(tmp_path, replace(SMALL, channels=1))
    assert len(decoded) == 6
    (tmp_path / "a").rename(tmp_path / "c")
    assert read_folder(tmp_path, SMALL).images[0, 0, 0].tolist() == list(GREEN)
    assert len(decoded) == 8
    put(tmp_path / "c" / "2.png", BLUE)
    assert len(read_folder(tmp_path, SMALL)) == 3
    assert len(decoded) == 11


def test_another_decoder_decodes_again(tmp_path, decoded, monkeypatch):
    read_folder(two_classes(tmp_path), SMALL)
    monkeypatch.setattr(reading, "VERSION", "another")
    read_folder(tmp_path, SMALL)
    assert len(decoded) == 4


def test_each_file_is_read_once(tmp_path, monkeypatch):
    two_classes(tmp_path)
    read = []
    reads = reading._read
    monkeypatch.setattr(reading, "_read", lambda file: (read.append(file.name), reads(file))[1])
    read_folder(tmp_path, SMALL)
    assert sorted(read) == ["a/1.png", "b/1.png"]
    read_folder(tmp_path, SMALL)
    assert sorted(read) == ["a/1.png"] * 2 + ["b/1.png"] * 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda npy, told: npy.write_bytes(npy.read_bytes()[:-7]),
        lambda npy, told: npy.write_bytes(npy.read_bytes()[:-1] + b"\x17"),
        lambda npy, told: npy.write_bytes(b""),
        lambda npy, told: np.save(npy, np.array([{}], object), allow_pickle=True),
        lambda npy, told: npy.unlink(),
        lambda npy, told: told.write_text("{", encoding="utf-8"),
        lambda npy, told: told.write_text('{"skipped": 3}', encoding="utf-8"),
        lambda npy, told: told.write_text("[]", encoding="utf-8"),
        lambda npy, told: (told.unlink(), told.mkdir()),
    ],
)
def test_a_damaged_entry_decides_nothing(tmp_path, decoded, kept, damage, caplog):
    first = read_folder(two_classes(tmp_path), SMALL)
    damage(*(next(kept.glob(f"*.{suffix}")) for suffix in ("npy", "json")))
    with caplog.at_level("INFO"):
        same(read_folder(tmp_path, SMALL), first)
    assert len(decoded) == 4
    assert not caplog.records, "only a line for who debugs"


def test_a_damaged_entry_is_replaced(tmp_path, monkeypatch, kept):
    first = read_folder(two_classes(tmp_path), SMALL)
    next(kept.glob("*.npy")).write_bytes(b"")
    read_folder(tmp_path, SMALL)
    no_decoder(monkeypatch)
    same(read_folder(tmp_path, SMALL), first)


@pytest.mark.parametrize("why", ["a file", "below a file", "full"])
def test_a_cache_that_cannot_be_written(tmp_path, kept, decoded, why, monkeypatch, caplog):
    two_classes(tmp_path)
    if why == "full":

        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache.np, "save", full)
    else:
        kept.touch()
        monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(kept if why == "a file" else kept / "deeper"))
    with caplog.at_level("DEBUG"):
        for _ in range(2):
            assert len(read_folder(tmp_path, SMALL)) == 2
    assert len(decoded) == 4
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert why != "full" or list(kept.iterdir()) == [], "no half of a file stays"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path, kept):
    kept.mkdir(mode=0o500)
    assert len(read_folder(two_classes(tmp_path), SMALL)) == 2


def test_a_read_only_folder_still_serves(tmp_path, kept, monkeypatch):
    first = read_folder(two_classes(tmp_path), SMALL)

    def refusing(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for name in ("mkdir", "unlink", "replace"):
        monkeypatch.setattr(cache.Path, name, refusing)
    monkeypatch.setattr(cache.os, "utime", refusing)
    monkeypatch.setattr(cache.tempfile, "mkstemp", refusing)
    assert len(read_folder(tmp_path, Wanted((4, 4)))) == 2, "what cannot be kept is given all the same"
    no_decoder(monkeypatch)
    same(read_folder(tmp_path, SMALL), first)


def test_the_user_alone_sees_what_is_kept(tmp_path, kept):
    read_folder(two_classes(tmp_path), SMALL)
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (kept, *kept.iterdir())] == [0, 0, 0]


def test_the_usual_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("AFFINITY_SEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    read_folder(two_classes(tmp_path / "set"), SMALL)
    if sys.platform == "linux":
        assert len(list((tmp_path / "home" / "affinity-search" / "images").glob("*.npy"))) == 1


def test_a_user_without_a_home_has_no_cache(tmp_path, monkeypatch, decoded):
    def homeless(*arguments, **options):
        raise RuntimeError("no home")

    monkeypatch.delenv("AFFINITY_SEARCH_CACHE")
    monkeypatch.setattr(cache.platformdirs, "user_cache_path", homeless)
    for _ in range(2):
        read_folder(two_classes(tmp_path), SMALL)
    assert len(decoded) == 4


def aged(path, days):
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def test_what_nobody_uses_goes_when_another_is_written(tmp_path, kept, decoded):
    two_classes(tmp_path)
    for wanted in (SMALL, Wanted((4, 4))):
        read_folder(tmp_path, wanted)
    for path in kept.iterdir():
        aged(path, 61)
    theirs = kept / "my thesis.npy"
    theirs.touch()
    left = [kept / f"{'a' * 24}-{'b' * 40}.npy.{name}.tmp" for name in ("old", "new")]
    for path in left:
        path.touch()
    aged(left[0], 2)
    aged(theirs, 900)
    read_folder(tmp_path, SMALL)  # used today
    assert len(decoded) == 4
    read_folder(tmp_path, Wanted((2, 2)))
    names = {path.name for path in kept.iterdir()}
    assert {theirs.name, left[1].name} < names
    assert len(names) == 6, "two entries of two files each"
    read_folder(tmp_path, SMALL)
    assert len(decoded) == 6
    read_folder(tmp_path, Wanted((4, 4)))
    assert len(decoded) == 8


def test_what_was_used_within_sixty_days_stays(tmp_path, kept, decoded):
    read_folder(two_classes(tmp_path), SMALL)
    for path in kept.iterdir():
        aged(path, 59)
    read_folder(tmp_path, Wanted((4, 4)))
    read_folder(tmp_path, SMALL)
    assert len(decoded) == 4


READ = """
import sys, hashlib
from pathlib import Path
from affinity_search.search.training.data.own import Wanted, cache, read_folder
store = cache.store
def together(*arguments):
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(20):
        store(*arguments)
cache.store = together
print(hashlib.sha256(read_folder(Path(sys.argv[1]), Wanted((64, 64))).images).hexdigest())
"""


def test_processes_may_write_the_same_entry_at_once(tmp_path, kept, monkeypatch):
    for number in range(60):
        put_array(tmp_path / "ab"[number % 2] / f"{number}.png", noise(number, (64, 64, 3)))
    command = [sys.executable, "-c", READ, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        no_entry = not list(kept.glob("*.json"))
        with monkeypatch.context() as patch:
            if not no_entry:
                no_decoder(patch)
                assert len(read_folder(tmp_path, Wanted((64, 64)))) == 60, "an entry that is there is always whole"
    assert len({process.communicate()[0] for process in processes}) == 1
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(path.suffix for path in kept.iterdir()) == [".json", ".npy"]


def test_nothing_readable_leaves_nothing(tmp_path, kept):
    for name in "ab":
        put(tmp_path / name / "1.png", RED).write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(Exception, match="class a has no images that can be read"):
        read_folder(tmp_path, SMALL)
    assert not kept.exists()
