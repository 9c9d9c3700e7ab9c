"""Images and vectors in NumPy's files, under the names of Keras and of MedMNIST."""

import numpy as np
import pytest
from own_files import noise, put

from affinity_search.search.training.data.own import Wanted, read_arrays, read_features
from affinity_search.search.training.errors import DataError, MissingDataError

AS_THEY_ARE = Wanted(None)
GREY = noise(0, (6, 5, 4))
LABELS = np.array([0, 1, 2, 0, 1, 2])


def saved(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def refusal(read, path, *arguments):
    with pytest.raises(DataError) as refused:
        read(path, *arguments)
    first, *lines = str(refused.value).splitlines()
    assert first == f"{path} cannot be used as it is:"
    return [line.strip() for line in lines]


def mistakes(folder, **arrays):
    return refusal(read_arrays, saved(folder, **arrays), AS_THEY_ARE)


@pytest.mark.parametrize(
    "names",
    [
        ["x_train", "y_train", "x_val", "y_val", "x_test", "y_test"],
        ["train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"],
        ["images_train", "labels_train", "x_validation", "y_validation", "test_images", "y_test"],
    ],
)
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_parts_under_all_names(tmp_path, names, shape):
    ends = [slice(0, 3), slice(3, 5), slice(5, 6)]
    arrays = {names[2 * part]: GREY[end] for part, end in enumerate(ends)}
    arrays |= {names[2 * part + 1]: LABELS[end].reshape(shape) for part, end in enumerate(ends)}
    found = read_arrays(saved(tmp_path, **arrays), AS_THEY_ARE)
    assert (found.images == GREY[..., None]).all()
    assert found.images.dtype == np.uint8
    assert found.labels.tolist() == LABELS.tolist()
    assert found.parts.tolist() == [0, 0, 0, 1, 1, 2]
    assert found.classes == ("0", "1", "2")
    assert (found.groups, found.names, found.skipped) == (None, (), ())
    assert found.name(4) == "number 4 (validation)"


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("x", "labels")])
def test_undivided(tmp_path, names):
    found = read_arrays(saved(tmp_path, **dict(zip(names, (noise(1, (6, 5, 4, 3)), LABELS), strict=True))), AS_THEY_ARE)
    assert (found.images == noise(1, (6, 5, 4, 3))).all()
    assert found.parts.tolist() == [0] * 6


def test_a_part_may_be_alone(tmp_path):
    assert read_arrays(saved(tmp_path, x_test=GREY, y_test=LABELS), AS_THEY_ARE).parts.tolist() == [2] * 6


def test_classes_have_names_and_may_be_empty(tmp_path):
    found = read_arrays(saved(tmp_path, x=GREY, y=LABELS, classes=["z", "é", "a", "none"]), AS_THEY_ARE)
    assert found.classes == ("z", "é", "a", "none"), "in the order of the labels"


@pytest.mark.parametrize("groups", [[7, 7, 9, 7, 1, 9], ["p", "p", "q", "p", "a", "q"]])
def test_groups_are_numbered_over_all_parts(tmp_path, groups):
    whole = read_arrays(saved(tmp_path, x=GREY, y=LABELS, groups=groups), AS_THEY_ARE)
    assert whole.groups.tolist() == [1, 1, 2, 1, 0, 2]
    parts = {"x_train": GREY[:4], "y_train": LABELS[:4], "x_test": GREY[4:], "y_test": LABELS[4:]}
    path = saved(tmp_path, **parts, groups_train=groups[:4], test_groups=np.reshape(groups[4:], (-1, 1)))
    assert read_arrays(path, AS_THEY_ARE).groups.tolist() == [1, 1, 2, 1, 0, 2]
    (problem,) = mistakes(tmp_path, **parts, groups_train=groups[:4])
    assert problem == "some parts have groups and others have not: give all of them groups, or none"
    assert mistakes(tmp_path, x=GREY, y=LABELS, groups=groups[:2])[0].startswith("groups has ")


def test_sizes_and_channels_are_made_as_wanted(tmp_path):
    colour = np.zeros((2, 8, 8, 3), np.uint8)
    colour[1] = (255, 0, 0)
    path = saved(tmp_path, x=colour, y=[0, 1])
    assert (read_arrays(path, Wanted((2, 4))).images[1] == (255, 0, 0)).all()
    assert read_arrays(path, Wanted((2, 4))).images.shape == (2, 2, 4, 3)
    assert read_arrays(path, Wanted(None, channels=1)).images[:, 0, 0].tolist() == [[0], [76]]
    grey = saved(tmp_path, x=GREY, y=LABELS)
    spread = read_arrays(grey, Wanted(None, channels=3)).images
    assert (spread == GREY[..., None]).all()
    assert spread.shape == (6, 5, 4, 3)
    assert read_arrays(grey, Wanted((10, 8))).images.shape == (6, 10, 8, 1)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (GREY / 255, "x holds float64 from 0 to 1, not bytes; save numpy.rint(255 * array).astype('uint8')"),
        (GREY - 7.0, "x holds float64 from -"),
        (GREY.astype(np.uint16), "x holds uint16, not bytes; if white is 65535"),
        (GREY > 7, "x holds bool, not bytes; save 255 * array"),
        (GREY.astype(np.int64), "x holds int64, not bytes"),
        (GREY.reshape(6, 20), "x has the shape (6, 20), not (N, height, width)"),
        (GREY[:, :, :0], "x has the shape (6, 5, 0), not"),
        (noise(0, (6, 5, 4, 4)), "x has 4 channels; what lies under clear pixels is for you to say"),
        (noise(0, (6, 5, 4, 2)), "x has 2 channels, not 1 or 3"),
        (noise(0, (6, 3, 5, 5)), "x has the shape (6, 3, 5, 5), channels before pixels; save numpy.moveaxis"),
        (GREY[:5], "x holds 5 images, but y 6 labels"),
        (np.uint8(3), "x holds no images, but y 6 labels"),
        (np.array([{}] * 6, object), "x is not a plain array of numbers"),
    ],
)
def test_images_that_are_none(tmp_path, images, told):
    (problem,) = mistakes(tmp_path, x=images, y=LABELS)
    assert problem.startswith(told)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 1, 2, 0, 1], "x holds 6 images, but y 5 labels"),
        ([0, 1, 2, -1, 1, 2], "there are negative labels: -1"),
        ([0.0, 1, 2, 0, 1, 2], "y holds float64, not whole numbers"),
        (list("abcabc"), "y holds <U1, not whole numbers; number the classes from 0"),
        ([0, 1, 2, 6, 1, 2], "labels go up to 6, but no image has 3, 4, 5; number the classes"),
        ([1, 2, 2, 1, 1, 2], "labels go up to 2, but no image has 0; number"),
        ([0, 1, 2, 10**9, 1, 2], "labels go up to 1000000000, but no image has 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and "),
        ([0, 1, 2, 2**40, 1, 2], "y holds the label 1099511627776"),
        ([0] * 6, "all labels are 0; a network learns to tell at least two"),
        (np.eye(6, dtype=int), "y has 6 labels for each image, not one"),
        (np.zeros((6, 1, 1), int), "y has the shape (6, 1, 1)"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, told):
    (problem,) = mistakes(tmp_path, x=GREY, y=labels)
    assert problem.startswith(told)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["a", "b"], "there is a label 2, but classes names 2, numbered from 0"),
        (["a", "b", "a"], "classes has a name more than once"),
        ([1, 2, 3], "classes has int64 of shape (3,), not a list of names"),
    ],
)
def test_classes_that_do_not_fit(tmp_path, classes, told):
    assert mistakes(tmp_path, x=GREY, y=LABELS, classes=classes) == [told]


def test_all_mistakes_come_at_once(tmp_path):
    assert mistakes(
        tmp_path, x_train=GREY / 255, y_train=LABELS, x_test=noise(0, (2, 7, 7)), y_test=[0, 5], y_val=LABELS
    ) == [
        "y_val has no images beside it",
        "labels go up to 5, but no image has 3, 4; number the classes from 0 without gaps, or name all of them in "
        "classes",
        "x_train holds float64 from 0 to 1, not bytes; save numpy.rint(255 * array).astype('uint8')",
        "the parts differ in shape: x_train 5×4×1, x_test 7×7×1",
    ]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({}, "it holds nothing, but neither images with labels, nor x_train with y_train"),
        ({"a": GREY, "b": LABELS}, "it holds a, b, but neither images"),
        ({"x": GREY}, "x has no labels beside it; they would be called labels"),
        ({"x_train": GREY}, "x_train has no labels beside it; they would be called labels_train"),
        ({"x": GREY, "images": GREY, "y": LABELS}, "images and x mean the same: leave one of them out"),
        ({"x": GREY, "y": LABELS, "x_test": GREY, "y_test": LABELS}, "it holds both x and x_test: leave one"),
        ({"x": GREY[:0], "y": LABELS[:0]}, "x is empty; leave it out"),
    ],
)
def test_arrays_that_are_missing(tmp_path, arrays, told):
    assert mistakes(tmp_path, **arrays)[0].startswith(told)


def test_a_group_of_file_names_needs_files(tmp_path):
    (problem,) = refusal(read_arrays, saved(tmp_path, x=GREY, y=LABELS), Wanted(None, group="."))
    assert problem.startswith("group: arrays have no file names")


@pytest.mark.parametrize("read", [lambda path: read_arrays(path, AS_THEY_ARE), read_features])
def test_files_that_cannot_be_read(tmp_path, read):
    with pytest.raises(MissingDataError, match="no such file"):
        read(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", GREY)
    path = saved(tmp_path, x=GREY, y=LABELS)
    whole = path.read_bytes()
    for name in ("one.npy", "", put(tmp_path / "1.png").name):
        with pytest.raises(DataError, match=r"is not a file that numpy\.savez writes"):
            read(tmp_path / name)
    path.write_bytes(whole[:150] + bytes(40) + whole[190:])
    with pytest.raises(DataError, match="cannot be read: "):
        read(path)
    np.savez_compressed(path, x=GREY, y=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(40) + whole[140:])
    with pytest.raises(DataError, match="cannot be read: "):
        read(path)


VECTORS = np.random.default_rng(0).normal(size=(6, 5))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "names", [("features", "labels"), ("x", "y"), ("x_train", "y_train"), ("train_features", "train_labels")]
)
def test_vectors(tmp_path, dtype, names):
    arrays = dict(zip(names, (VECTORS.astype(dtype), LABELS), strict=True))
    found = read_features(
        saved(tmp_path, **arrays, **{names[1].replace("labels", "groups").replace("y", "groups"): LABELS})
    )
    assert found.images.dtype == np.float32
    assert (found.images == VECTORS.astype(dtype).astype(np.float32)).all()
    assert (found.labels.tolist(), found.groups.tolist()) == (LABELS.tolist(), LABELS.tolist())


def test_values_that_are_no_numbers_are_counted_and_found(tmp_path):
    vectors = VECTORS.copy()
    vectors[1, 2:4], vectors[4, 0], vectors[5, 0] = np.nan, -np.inf, 1e300
    assert refusal(read_features, saved(tmp_path, features=vectors, labels=LABELS)) == [
        "features has 4 values that are NaN, infinite or too large for 32 bits, in rows 1, 4, 5 (the first row is 0)"
    ]


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.zeros((6, 100_001), np.float16), "x has vectors of 100001 values; there may be 1 to 100,000"),
        (VECTORS[:, :0], "x has vectors of 0 values"),
        (VECTORS[:, None], "x has the shape (6, 1, 5), not (N, D)"),
        (VECTORS.astype(int), "x holds int64, not floating-point numbers"),
        (VECTORS[:5], "x holds 5 vectors, but y 6 labels"),
    ],
)
def test_vectors_that_are_none(tmp_path, vectors, told):
    (problem,) = refusal(read_features, saved(tmp_path, x=vectors, y=LABELS))
    assert problem.startswith(told)


def test_parts_of_other_lengths(tmp_path):
    path = saved(tmp_path, x_train=VECTORS, y_train=LABELS, x_test=VECTORS[:, :3], y_test=LABELS)
    assert refusal(read_features, path) == ["the parts differ in shape: x_train 5, x_test 3"]


def test_images_are_no_vectors(tmp_path):
    path = saved(tmp_path, images=GREY, labels=LABELS)
    assert refusal(read_features, path) == [
        "it holds images, labels, but neither features with labels, nor x_train with y_train"
    ]
    path = saved(tmp_path, x=noise(0, (6, 5, 4)), y=LABELS)
    assert refusal(read_features, path) == ["x holds uint8, not floating-point numbers; save array.astype('float32')"]
