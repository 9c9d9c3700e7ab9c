"""Reading study files: paths, bundled names, overrides, and files that mean harm."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import LIMIT_BYTES, load
from affinity_search.studies.model.parameters import Choice, Constant, IntegerRange, RealRange

STUDY = """
trials = 5
[data]
set = "mnist"
minority = 10
[network]
widths = [32, 64]
[training]
epochs = 3
batch = 64
learning_rate = 1e-3
[space]
lambda = { low = 0.01, high = 1 }
sigma = { low = 10, high = 1000, log = true }
n_centers = { low = 1, high = 30 }
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "tried.toml"
    file.write_text(STUDY, encoding="utf-8")
    return str(file)


def mistakes_of(content: str | bytes, tmp_path: Path) -> list[str]:
    file = tmp_path / "odd.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StudyFileError) as caught:
        load(str(file))
    assert str(caught.value).startswith(str(file))
    assert all(line.isprintable() and len(line) < 400 for line in caught.value.mistakes)
    return caught.value.mistakes


def refused(source: str) -> str:
    with pytest.raises(StudyFileError) as caught:
        load(source)
    return "\n".join(caught.value.mistakes)


def test_the_name_is_the_file_s_stem(path: str) -> None:
    assert load(path).name == "tried"
    assert load(path, ["name=other"]).name == "other"


def test_a_stem_that_is_no_name_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "a\nb.toml"
    file.write_text(STUDY)
    with pytest.raises(StudyFileError) as caught:
        load(str(file))
    assert caught.value.mistakes == ["name: 'a\\nb' given; allowed: 1 to 200 printable characters"]
    assert str(caught.value).count("\n") == 1
    assert load(str(file), ["name=good"]).name == "good"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes(b"\xef\xbb\xbf" + STUDY.replace("\n", "\r\n").encode())
    assert load(str(file)).trials == 5


def test_overrides_are_toml_values_or_bare_words(path: str) -> None:
    overrides = ["data.set=cifar10", "training.epochs = 20", "training.drops=[]", "training.augment=true"]
    spec = load(path, [*overrides, "seed=1", "seed=2", "sampler.n_startup_trials=3"])
    assert (spec.data.set, spec.training.epochs, spec.training.drops, spec.training.augment) == (
        "cifar10",
        20,
        (),
        True,
    )
    assert (spec.seed, spec.sampler.options) == (2, {"n_startup_trials": 3})


def test_overrides_of_the_space(path: str) -> None:
    spec = load(path, ["space.sigma.low=1", "space.n_centers=[1, 5]", "space.lambda=0.75"])
    assert spec.space is not None
    assert spec.space["sigma"] == RealRange(low=1.0, high=1000.0, log=True)
    assert spec.space["n_centers"] == Choice(values=(1, 5))
    assert spec.space["lambda"] == Constant(value=0.75)


def test_a_range_may_take_a_choice_s_place(path: str) -> None:
    spec = load(path, ["space.n_centers=[1,5]", "space.n_centers.low=2", "space.n_centers.high=3"])
    assert spec.space is not None
    assert spec.space["n_centers"] == IntegerRange(low=2, high=3)


@pytest.mark.parametrize("none", ["space=none", "space='none'", ' space = "none" '])
def test_softmax_without_the_space(path: str, none: str) -> None:
    with pytest.raises(StudyFileError, match="--set space=none"):
        load(path, ["network.head=softmax"])
    assert load(path, ["network.head=softmax", none]).space is None


@pytest.mark.parametrize(("text", "name"), [("2024", "2024"), ('"quoted"', "quoted"), ("a=b", "a=b"), ("[1]", "[1]")])
def test_a_name_is_always_text(path: str, text: str, name: str) -> None:
    assert load(path, [f"name={text}"]).name == name


def test_overrides_go_through_the_same_checks(path: str) -> None:
    overrides = ["training.epochs=0", "training.lr=1", "space.sigma.low=-5", "data.set=mnits", "data.set.deep=1"]
    with pytest.raises(StudyFileError) as caught:
        load(path, overrides)
    assert [line.partition(":")[0] for line in caught.value.mistakes] == [
        *("data.set", "training.epochs", "training.lr", "space.sigma.low"),
    ]


def test_an_override_cannot_smuggle_in_a_second_key(path: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        load(path, ["training.epochs=1\nbatch = 2"])
    assert caught.value.mistakes == ["training.epochs: '1\\nbatch = 2' given; allowed: a whole number from 1 to 10000"]


@pytest.mark.parametrize("override", ["", "epochs", "=5", "training.=5", ".epochs=5", "a\nb=5", "a\udc80=5"])
def test_malformed_overrides_are_told_with_the_rest(path: str, override: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        load(path, [override, "trials=0"])
    first, second = caught.value.mistakes
    assert first.startswith("--set '")
    assert "allowed: --set key.path=value" in first
    assert first.isprintable()
    assert second == "trials: 0 given; allowed: a whole number from 1 to 100000"
    with pytest.raises(StudyFileError, match="has 1 mistake"):
        load(path, [override])


@pytest.mark.parametrize(
    "override", ["a." * 30_000 + "b=1", "seed=" + "[" * 30_000, "seed=" + "9" * 9000, "seed=\udc80", "space.sigma=\0"]
)
def test_hostile_overrides_are_mistakes(path: str, override: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        load(path, [override])
    assert len(caught.value.mistakes) == 1
    assert len(str(caught.value)) < 500 + len(path)


def test_sources_that_are_no_files(tmp_path: Path) -> None:
    assert "did you mean cifar10?" in refused("cifr10")
    assert "bundled studies: cifar10, cifar10-article, digits" in refused(str(tmp_path / "zzz"))
    assert refused(str(tmp_path)) == "cannot be read: not a regular file"
    assert refused("/dev/zero") == "cannot be read: not a regular file"
    assert refused("") == "cannot be read: not a regular file"
    assert refused("a\0b") == "cannot be read: not a possible path"
    assert refused("x" * 5000) == "cannot be read: File name too long"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert refused(str(tmp_path / "pipe.toml")) == "cannot be read: not a regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(path: str) -> None:
    Path(path).chmod(0)
    assert refused(path) == "cannot be read: Permission denied"


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert refused(str(file)) == f"too large: {1 << 40} bytes; allowed: up to {LIMIT_BYTES} bytes"


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "full.toml"
    file.write_text(STUDY + "#" * (LIMIT_BYTES - len(STUDY)))
    assert load(str(file)).trials == 5
    file.write_text(STUDY + "#" * (LIMIT_BYTES - len(STUDY) + 1))
    assert refused(str(file)).startswith("too large: 1048577 bytes")


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, small = tmp_path / "grown.toml", Path(path).stat()
    file.write_text(STUDY + "#" * LIMIT_BYTES)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", lambda _: small)
        assert refused(str(file)).startswith("too large: ")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("trials = 5\nseed = \n", "not valid TOML: Invalid value (at line 2, column 8)"),
        ("seed = 1\nseed = 1", "not valid TOML: Cannot overwrite a value"),
        (b"name = 'x'\n# \xff", "not UTF-8 text (at line 2)"),
        ("name = 'x'".encode("utf-16"), "not UTF-8 text (at line 1)"),
        (b"\0", "not valid TOML"),
        ("seed = " + "9" * 5000, "a number with thousands of digits"),
        ("a = " + "[" * 10_000 + "]" * 10_000, "nested too deeply"),
        ("a = " + "{a=" * 10_000 + "1" + "}" * 10_000, "nested too deeply"),
        ("seed = 1\n[" + ".".join("a" * 10_000) + "]", "more than 128 dots (at line 2)"),
        (".".join("a" * 300_000) + " = 1", "more than 128 dots (at line 1)"),
    ],
)
def test_what_is_no_toml_says_so_with_its_line(content: str | bytes, line: str, tmp_path: Path) -> None:
    (found,) = mistakes_of(content, tmp_path)
    assert line in found


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("\n".join(f"[a.t{at}]" for at in range(10_000)), "a: unknown key"),
        ("[" + ".".join("a" * 120) + "]\nb = 1", "a: unknown key"),
        ("x" * 900_000 + " = 1", "...xxx"),
        ("name = '" + "x" * 900_000 + "'", "name: 'xxx"),
        ("seed = 0x" + "f" * 100_000, "seed: <an integer of 400000 bits> given"),
        ('"\\u001b[31m\\n" = 1', "'\\x1b[31m\\n': unknown key"),
        ("trials = 2020-01-01", "trials: 2020-01-01 given"),
        ("[[data]]\n[[space]]", "data: [{}] given; allowed: a table [data]"),
        ("[space]\nsigma = [" + "0," * 400_000 + "]", "allowed: a list of 1 to 1000 values"),
        ("[network]\nwidths = [" + "0," * 400_000 + "]", "network.widths[0]: 0 given"),
        ("[space.sigma]\n" + "\n".join(f"k{at}=1" for at in range(50_000)), "space.sigma.k0: unknown key"),
        ("\n".join(f"trial{at}=1" for at in range(50_000)), "trial0: unknown key; did you mean trials?"),
    ],
)
def test_hostile_content_is_told_quickly(content: str, line: str, tmp_path: Path) -> None:
    start = time.monotonic()
    assert any(line in found for found in mistakes_of(content, tmp_path))
    assert time.monotonic() - start < 20  # one to three seconds when nothing else runs


def test_dots_in_comments_are_no_keys(tmp_path: Path) -> None:
    file = tmp_path / "dotted.toml"
    file.write_text("# " + "." * 500 + STUDY)
    assert load(str(file)).trials == 5


def test_importing_brings_no_heavy_library() -> None:
    code = "import sys, affinity_search.studies.files; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"optuna", "keras", "tensorflow", "numpy", "sqlalchemy", "storage", "search"} & set(loaded)


def test_a_new_kind_takes_the_old_kind_s_options_away() -> None:
    """The bundled digits give their halving pruner options, which no other kind takes."""
    assert load("digits").pruner.options
    assert load("digits", ["pruner.kind=none"]).pruner.options == {}
    kept = load("digits", ["pruner.n_warmup_steps=4", "pruner.kind=median"])
    assert (kept.pruner.kind, kept.pruner.options) == ("median", {"n_warmup_steps": 4})
    assert load("digits", ["pruner.kind=halving"]).pruner.options == load("digits").pruner.options
