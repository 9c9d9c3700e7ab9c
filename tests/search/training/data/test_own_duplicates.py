"""Images that occur more than once, and the sizes of those in a folder."""

import numpy as np
import pytest
from own_files import noise, put, put_array, two_classes
from PIL import Image

from affinity_search.search.training.data.own import Collection, duplicates, sizes
from affinity_search.search.training.errors import DataError


def collection(images, labels=None, parts=None, names=()):
    n = len(images)
    return Collection(
        np.stack(images),
        np.zeros(n, np.int32) if labels is None else np.int32(labels),
        np.zeros(n, np.uint8) if parts is None else np.uint8(parts),
        ("a", "b", "c"),
        None,
        tuple(names),
        (),
    )


def picture(seed, size=40):
    """Soft blobs, as in a photograph."""
    return np.asarray(Image.fromarray(noise(seed, (5, 5, 3))).resize((size, size), Image.Resampling.BICUBIC))


def test_equal_images_count_across_parts_and_classes():
    one, two, three = (picture(seed) for seed in range(3))
    images = [one, one, two, two, three, three, one, picture(4)]
    found = duplicates(collection(images, [0, 0, 0, 1, 2, 2, 0, 1], [0, 0, 0, 0, 0, 2, 0, 2], "abcdefgh"))
    assert [(each.names, each.across_parts, each.across_classes) for each in found.equal] == [
        (("c", "d"), False, True),
        (("e", "f"), True, False),
    ]
    assert (found.near, found.not_compared) == ((), None)


def test_arrays_are_named_by_their_number():
    found = duplicates(collection([picture(0)] * 2, parts=[0, 2]))
    assert found.equal[0].names == ("number 0 (train)", "number 1 (test)")
    assert found.equal[0].indices == (0, 1)


def test_a_picture_that_was_saved_once_more_is_near(tmp_path):
    images = [picture(seed) for seed in range(300)]
    put_array(tmp_path / "again.jpg", images[281], quality=10)  # two bits of its hash are others
    images.append(np.asarray(Image.open(tmp_path / "again.jpg")))
    images.append(np.clip(images[5].astype(int) + 4, 0, 255).astype(np.uint8))  # a little brighter
    images.append(images[7])
    found = duplicates(collection(images, parts=[0] * 300 + [1] * 3))
    assert [each.indices for each in found.near] == [(5, 301), (281, 300)]
    assert found.near[0].across_parts
    assert not found.near[0].across_classes
    assert [each.indices for each in found.equal] == [(7, 302)]


def test_one_channel_is_compared_too():
    grey = picture(1)[..., :1]
    other = grey.copy()
    other[0, 0] ^= 1
    assert [each.indices for each in duplicates(collection([grey, picture(2)[..., :1], other])).near] == [(0, 2)]


def test_equal_hashes_of_other_brightness_are_not_near():
    """A plain picture has no brighter neighbours, whatever its colour."""
    assert duplicates(collection([np.full((8, 8, 3), value, np.uint8) for value in (0, 100, 200)])).near == ()


def test_plain_pictures_fill_no_memory():
    shades = [np.full((8, 8, 3), 100, np.uint8) for _ in range(100)]
    for number, image in enumerate(shades):
        image[0, 0, 0] = number
    found = duplicates(collection(shades))
    assert len(found.near) == 1_000
    assert found.not_compared == "the first 1,000 near pairs are listed, and there are more"


def test_too_many_and_vectors_are_compared_for_equality_alone():
    many = duplicates(collection(np.zeros((20_001, 1, 1, 1), np.uint8), np.arange(20_001) % 2))
    assert len(many.equal[0].indices) == 20_001
    assert many.not_compared == "near ones are looked for among up to 20,000 images, and there are 20,001"
    vectors = np.float32([[1, 2], [1, 2], [1, 2.0001]])
    found = duplicates(collection(vectors, [0, 1, 2]))
    assert [each.indices for each in found.equal] == [(0, 1)]
    assert found.near == ()
    assert "feature vectors" in found.not_compared


def test_sizes_of_each_class(tmp_path):
    for part, name, width, height in [
        ("train", "a", 10, 20),
        ("train", "a", 30, 25),
        ("test", "a", 50, 90),
        ("val", "b", 7, 8),
    ]:
        put(tmp_path / part / name / f"{width}.png", size=(width, height))
    (tmp_path / "val" / "b" / "notes.txt").write_text("text", encoding="utf-8")
    found = sizes(tmp_path)
    assert found.divided
    assert found.skipped == (("val/b/notes.txt", "not a JPEG, PNG, BMP, WebP or TIFF"),)
    a, b = found.classes
    assert (a.name, a.counts, a.images, a.height, a.width) == ("a", (2, 0, 1), 3, (20, 25, 90), (10, 30, 50))
    assert (b.name, b.counts, b.height, b.width) == ("b", (0, 1, 0), (8, 8, 8), (7, 7, 7))


def test_sizes_decode_nothing(tmp_path, monkeypatch):
    two_classes(tmp_path)

    def refusing(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", refusing)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refusing)
    found = sizes(tmp_path)
    assert (found.divided, [each.images for each in found.classes]) == (False, [1, 1])


def test_sizes_refuse_what_reading_refuses(tmp_path):
    put(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").write_text("text", encoding="utf-8")
    with pytest.raises(DataError) as refused:
        sizes(tmp_path)
    assert [line.strip() for line in str(refused.value).splitlines()[1:]] == [
        "class b has no images",
        "class c has no images that can be read",
    ]
