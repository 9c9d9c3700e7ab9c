import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import CIFAR, write_cifar, write_mnist
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from affinity_search.search.training.data import readers
from affinity_search.search.training.data.dividing import division_mistake, held_out
from affinity_search.search.training.data.published import digits
from affinity_search.search.training.data.splits import (
    Split,
    holdout,
    imbalance,
    load_test,
    load_train,
    search_splits,
    test_split,
)
from affinity_search.search.training.errors import DataError
from affinity_search.studies.data import SOURCES

THREE = replace(SOURCES["digits"], classes=("a", "b", "c"))
test_split.__test__ = False  # a function of ours, not a test


@pytest.fixture(scope="module")
def real_data():
    folder = os.environ.get("AFFINITY_SEARCH_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("AFFINITY_SEARCH_DATA names no folder with mnist.npz and cifar-10-batches-py")
    return Path(folder)


def python2_pickle(array, labels):
    """What Python 2 with NumPy 1 wrote, opcode by opcode: byte strings, numpy.core names, protocol 2."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"J" + int(value).to_bytes(4, "little", signed=True)

    shape = number(array.shape[0]) + number(array.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    raw = array.tobytes()
    state = b"(" + number(1) + shape + dtype + b"\x89" + b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    items = text(b"data") + made + state + text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + items + b"u."


@pytest.mark.parametrize(
    ("name", "minority", "train", "test"),
    [
        ("cifar10", 200, [1000, 5000], [200, 1000]),
        ("cifar10", 10, [50, 5000], [10, 1000]),
        ("mnist", 500, [3000, None], [500, None]),
    ],
)
def test_real_sets_have_the_documented_counts(real_data, name, minority, train, test):
    found = [imbalance(load_train(SOURCES[name], real_data), minority * SOURCES[name].train_per_test, SOURCES[name])]
    found.append(test_split(SOURCES[name], minority, real_data))
    for split, (even, odd) in zip(found, (train, test), strict=True):
        counts = split.counts(10)
        assert set(counts[::2]) == {even}
        assert odd is None or set(counts[1::2]) == {odd}


def test_real_mnist_is_exact(real_data):
    assert load_train(SOURCES["mnist"], real_data).labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert len(load_train(SOURCES["mnist"], real_data)) == 60_000
    assert len(load_test(SOURCES["mnist"], real_data)) == 10_000


def test_digits_division_is_fixed_and_complete():
    train, test = load_train(SOURCES["digits"], None), load_test(SOURCES["digits"], None)
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (8, 8, 1)
    assert train.images.dtype == np.uint8
    assert (train.images.max(), train.images.min()) == (255, 0)
    assert all(34 <= count <= 36 for count in test.counts(10))
    assert all(4 * t <= count <= 4 * t + 4 for t, count in zip(test.counts(10), train.counts(10), strict=True))
    every = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in every for image in test.images)


@pytest.mark.parametrize("n", [5, 20])
def test_digits_imbalance(n):
    train, evaluation = search_splits(SOURCES["digits"], n, 0.25, "article", 0, None)
    assert set(train.counts(10)[::2]) == {4 * n}
    assert set(evaluation.counts(10)[::2]) == {n}
    assert train.counts(10)[1::2] == load_train(SOURCES["digits"], None).counts(10)[1::2]


def test_imbalance_keeps_the_first_images_in_order():
    labels = np.int32([0, 1, 0, 1, 0, 2, 2])
    split = Split(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), labels)
    kept = imbalance(split, 2, THREE)
    assert kept.images.ravel().tolist() == [0, 1, 2, 3, 5, 6]
    assert kept.labels.tolist() == [0, 1, 0, 1, 2, 2]
    assert (split.minority, kept.minority) == ((), (True, False, True))


@pytest.mark.parametrize("asked", [3, 0, -1])
def test_impossible_imbalance_names_the_counts(asked):
    split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.int32([0, 0, 0, 1, 2]))
    with pytest.raises(DataError, match=re.escape("0: 3, 2: 1")):
        imbalance(split, asked, THREE)


def test_holdout_is_stratified_and_follows_its_seed():
    train = load_train(SOURCES["digits"], None)
    rest, held = holdout(train, 0.25, seed=1)
    assert len(rest) + len(held) == len(train)
    small = replace(train, minority=(True,) * 10)
    assert {part.minority for part in holdout(small, 0.25, seed=1)} == {(True,) * 10}
    assert all(abs(h - c / 4) <= 1 for h, c in zip(held.counts(10), train.counts(10), strict=True))
    again, other = holdout(train, 0.25, seed=1)[1], holdout(train, 0.25, seed=2)[1]
    assert (again.images == held.images).all()
    assert (other.images != held.images).any()


@pytest.mark.parametrize("fraction", [0.01, 0.0, 1.0, 0.99])
def test_holdout_that_would_lose_a_class_is_refused(fraction):
    with pytest.raises(DataError, match=r"held out|Holding out"):
        holdout(imbalance(load_train(SOURCES["digits"], None), 3, SOURCES["digits"]), fraction, seed=0)


def test_search_holdout_leaves_the_test_set_unopened(tmp_path, monkeypatch):
    opened = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self.name) or read(self))
    write_cifar(tmp_path)
    train, evaluation = search_splits(SOURCES["cifar10"], 2, 0.4, "holdout", 0, tmp_path)
    assert opened == [f"data_batch_{i}" for i in range(1, 6)]
    counts = [a + b for a, b in zip(train.counts(10), evaluation.counts(10), strict=True)]
    assert counts == [10] * 10
    assert evaluation.counts(10) == (4,) * 10


def test_mnist_reads_only_the_arrays_it_needs(tmp_path):
    arrays = write_mnist(tmp_path, x_test=np.array([{}], object))
    train = load_train(SOURCES["mnist"], tmp_path)
    assert (train.images[..., 0] == arrays["x_train"]).all()
    assert train.labels.dtype == np.int32
    with pytest.raises(DataError, match=r"mnist\.npz"):  # pickled objects are never loaded
        load_test(SOURCES["mnist"], tmp_path)


@pytest.fixture(params=CIFAR)
def cifar(request):
    """A set of the family: its declaration, and the name of its test batch."""
    (test_batch,) = CIFAR[request.param].files["test"]
    return SOURCES[request.param], test_batch


@pytest.mark.parametrize("inside", [True, False])
def test_cifar_folder_itself_or_its_parent(tmp_path, inside, cifar):
    source, name = cifar
    batches = write_cifar(tmp_path, [name], of=source.name)
    split = load_test(source, batches if inside else tmp_path)
    assert split.images.shape == (20, 32, 32, 3)
    assert split.labels.tolist() == [label % source.n_classes for label in range(20)]
    first = readers.unpickle_arrays(batches / name)[b"data"][0]
    assert split.images[0, 0, :2].tolist() == [
        [first[0], first[1024], first[2048]],
        [first[1], first[1025], first[2049]],
    ]


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    path = tmp_path / "batch"
    content = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2], b"name": b"caf\xe9"}
    path.write_bytes(pickle.dumps(content, protocol))
    loaded = readers.unpickle_arrays(path)
    assert (loaded[b"data"] == content[b"data"]).all()
    assert loaded[b"labels"] == [1, 2]
    assert loaded[b"name"] == b"caf\xe9"


def test_the_official_python2_layout_is_read(tmp_path):
    (tmp_path / SOURCES["cifar10"].holds).mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)
    (tmp_path / SOURCES["cifar10"].holds / "test_batch").write_bytes(python2_pickle(rows, [3, 8, 8, 0]))
    split = load_test(SOURCES["cifar10"], tmp_path)
    assert split.labels.tolist() == [3, 8, 8, 0]
    assert (split.images[1, ..., 2].ravel() == rows[1, 2048:]).all()


class Hostile:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.lib.format.read_array])
def test_a_hostile_pickle_is_refused_and_never_run(tmp_path, function, protocol, cifar):
    source, name = cifar
    batches = write_cifar(tmp_path, [name], of=source.name)
    marker = tmp_path / "ran"
    content = {b"data": Hostile(function, f"touch '{marker}'"), CIFAR[source.name].labels: [1]}
    (batches / name).write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(DataError, match=rf"{name}.*refused"):
        load_test(source, tmp_path)
    assert not marker.exists()


def test_other_codecs_are_refused(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.")
    with pytest.raises(DataError, match="refused codec"):
        readers.unpickle_arrays(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        [1],
        {"data": np.zeros((2, 9), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 100]},
        {"data": np.zeros((2, 3072), np.uint8)},
    ],
)
def test_a_damaged_batch_is_named(tmp_path, content, cifar):
    source, name = cifar
    batches = write_cifar(tmp_path, [name], of=source.name)
    if isinstance(content, dict):
        keys = {"data": b"data", "labels": CIFAR[source.name].labels}
        content = {keys[key]: value for key, value in content.items()}
    (batches / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    with pytest.raises(DataError, match=rf"/{name} "):
        load_test(source, tmp_path)


def test_one_label_too_many_is_refused(tmp_path, cifar):
    source, name = cifar
    batches, key = write_cifar(tmp_path, [name], of=source.name), CIFAR[source.name].labels
    for most in (source.n_classes - 1, source.n_classes):
        rows = np.zeros((2, 3072), np.uint8)
        (batches / name).write_bytes(pickle.dumps({b"data": rows, key: [0, most]}))
        if most < source.n_classes:
            assert load_test(source, tmp_path).labels.tolist() == [0, most]
    with pytest.raises(DataError, match=rf"/{name} holds .* one label 0\.\.{source.n_classes - 1} each"):
        load_test(source, tmp_path)


def test_the_fine_classes_of_cifar100_are_in_the_order_of_its_labels():
    """As its `meta` file has them: by the alphabet."""
    names = SOURCES["cifar100"].classes
    assert (len(names), names[0], names[-1], list(names)) == (100, "apple", "worm", sorted(names))
    assert [names[label] for label in (1, 13, 47, 58, 81, 99)] == [
        *("aquarium_fish", "bus", "maple_tree", "pickup_truck", "streetcar", "worm"),
    ]


def test_cifar100_with_few_images_of_every_other_class(tmp_path):
    write_cifar(tmp_path, n=1000, of="cifar100")
    write_cifar(tmp_path, ["test"], n=200, of="cifar100")
    train, evaluation = search_splits(SOURCES["cifar100"], 1, 0.4, "article", 0, tmp_path)
    assert train.counts(100) == (5, 10) * 50
    assert evaluation.counts(100) == (1, 2) * 50


@pytest.mark.parametrize("changes", [{"x_train": np.zeros((40, 8, 8), np.uint8)}, {"y_train": np.zeros(3, np.uint8)}])
def test_a_wrong_mnist_is_named(tmp_path, changes):
    write_mnist(tmp_path, **changes)
    with pytest.raises(DataError, match=r"mnist\.npz"):
        load_train(SOURCES["mnist"], tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_an_empty_or_absent_folder_is_named(tmp_path, name):
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        load_train(SOURCES[name], tmp_path)
    with pytest.raises(DataError, match="--data-dir"):
        load_train(SOURCES[name], tmp_path / "nowhere")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(DataError, match="'imagenet'; there are digits, mnist, cifar10, cifar100"):
        load_train(replace(THREE, name="imagenet"), None)
    with pytest.raises(DataError, match="holdout and article"):
        search_splits(SOURCES["digits"], 20, 0.2, "cheat", 0, None)


def test_without_network_the_sentence_names_the_cache_and_the_way_out(monkeypatch, capsys):
    keras = pytest.importorskip("keras")

    def fail():
        print("Downloading data from https://example.org/mnist.npz")
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(DataError, match=r"mnist.*datasets.*URL fetch failure.*--data-dir"):
        load_train(SOURCES["mnist"], None)
    assert capsys.readouterr().out == "", "progress goes to stderr"


@pytest.mark.parametrize(("load", "first"), [(load_train, 1), (load_test, 2)])
def test_keras_loader_gives_the_half_asked_for(monkeypatch, load, first, cifar):
    keras = pytest.importorskip("keras")
    halves = [(np.full((3, 32, 32, 3), n, np.uint8), np.full((3, 1), n, np.uint8)) for n in (1, 2)]
    monkeypatch.setattr(getattr(keras.datasets, cifar[0].name), "load_data", lambda: tuple(halves))
    split = load(cifar[0], None)
    assert (split.images == first).all()
    assert split.labels.tolist() == [first] * 3


def test_datasets_can_be_used_without_keras():
    """Commands that only look at data start fast."""
    import subprocess

    training = "affinity_search.search.training"
    code = f"import sys, {training}.data.splits, {training}.metrics; print('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_split_counts_include_empty_classes():
    assert Split(np.zeros((2, 1, 1, 1), np.uint8), np.int32([2, 2])).counts(4) == (0, 0, 2, 0)


class TestWithoutScikitLearn:
    """A worker does not import it to begin: what is our own must be what it gives."""

    @given(
        counts=st.lists(st.integers(2, 40), min_size=2, max_size=9),
        share=st.floats(0.05, 0.9),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_a_share_is_held_out_as_it_divides(self, counts: list[int], share: float, seed: int) -> None:
        assume(division_mistake(counts, share) is None)
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
        try:
            left, held = train_test_split(np.arange(len(labels)), test_size=share, random_state=seed, stratify=labels)
            lacks = [set(labels[side]) != set(labels) for side in (left, held)]
        except ValueError:  # fewer images than classes on a side
            lacks = [True]
        if any(lacks):  # by lot, among equal remainders
            with pytest.raises(DataError, match="No image of "):
                held_out(labels, None, share, seed)
        else:
            assert np.flatnonzero(held_out(labels, None, share, seed)).tolist() == sorted(held.tolist())

    def test_the_digits_are_its_digits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected, labels = load_digits(return_X_y=True)
        for kept_elsewhere in (False, True):
            if kept_elsewhere:
                monkeypatch.setattr(digits, "find_spec", lambda name: None)
            found, of = digits._digits()
            assert (found == expected).all()
            assert (of == labels).all()

    def test_the_digits_and_their_division_import_nothing_of_it(self) -> None:
        code = """
import sys
from affinity_search.search.training.data.dividing import held_out
from affinity_search.search.training.data.published.digits import read
from affinity_search.search.worker import setup
from affinity_search.studies.data import SOURCES
images, labels = read(SOURCES["digits"], None, "train")
assert held_out(labels, None, 0.2, 0).sum() == 289
print(*(name for name in sys.modules if name.startswith(("sklearn", "scipy.stats"))))
"""
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, ""), done
