"""Every kind of image file becomes the pixels that a viewer shows."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from own_files import BLUE, GREEN, RED, SMALL, image_bytes, noise, put, put_array, read_one, two_classes
from PIL import Image

from affinity_search.search.training.data.own import Wanted, decode, read_folder, sizes
from affinity_search.search.training.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("AFFINITY_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_every_format_gives_its_colour(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    put(tmp_path / "a" / f"x.{suffix}", (200, 40, 90), **options)
    assert np.abs(read_one(tmp_path, f"x.{suffix}").astype(int) - (200, 40, 90)).max() <= 3


def test_bytes_of_a_png_are_kept_exactly(tmp_path):
    put_array(tmp_path / "a" / "x.png", noise(1))
    assert (read_one(tmp_path, "x.png") == noise(1)).all()


def test_the_content_decides_what_a_file_is(tmp_path):
    put(tmp_path / "a" / "x.jpg", GREEN, format="PNG")
    put(tmp_path / "a" / "none", GREEN, format="PNG")
    assert (read_one(tmp_path, "x.jpg") == GREEN).all()
    assert (read_one(tmp_path, "none") == GREEN).all()


def test_grey_images_alone_have_one_channel(tmp_path):
    put(tmp_path / "a" / "grey.png", 7, mode="L")
    put(tmp_path / "a" / "bits.png", 1, mode="1")
    put(tmp_path / "b" / "grey that says colour.png", (9, 9, 9))
    found = read_folder(tmp_path, SMALL)
    assert found.images.shape == (3, 8, 8, 1)
    assert found.images[:, 0, 0, 0].tolist() == [255, 7, 9]
    assert read_folder(tmp_path, replace(SMALL, channels=3)).images.shape == (3, 8, 8, 3)


def test_one_image_in_colour_gives_all_three_channels(tmp_path):
    for number in range(40):
        put(tmp_path / "a" / f"{number:02}.png", number, mode="L")
    put(tmp_path / "b" / "1.png", BLUE)
    images = read_folder(tmp_path, SMALL).images
    assert images.shape == (41, 8, 8, 3)
    assert (images[:40] == np.arange(40)[:, None, None, None]).all()
    assert (images[40] == BLUE).all()
    one = read_folder(tmp_path, replace(SMALL, channels=1)).images
    assert one.shape == (41, 8, 8, 1)
    assert one[40, 0, 0, 0] == 29, "blue as bright as it looks"


def test_a_pixel_in_colour_is_not_grey(tmp_path):
    picture = np.full((8, 8, 3), 100, np.uint8)
    picture[7, 7, 2] = 101
    put_array(tmp_path / "a" / "1.png", picture)
    put(tmp_path / "b" / "1.png", 3, mode="L")
    assert (read_folder(tmp_path, SMALL).images[0] == picture).all()


def test_clear_pixels_become_black(tmp_path):
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[..., :3] = (200, 100, 50)
    hidden[:4, :, 3] = 255
    hidden[4:6, :, 3] = 128
    put_array(tmp_path / "a" / "x.png", hidden)
    pixels = read_one(tmp_path, "x.png")
    assert (pixels[:4] == (200, 100, 50)).all()
    assert (pixels[4:6] == (100, 50, 25)).all()
    assert (pixels[6:] == 0).all()


def test_a_palette_with_a_clear_colour(tmp_path):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([*GREEN, *RED])
    picture.paste(0, (0, 0, 8, 4))
    (tmp_path / "a").mkdir()
    picture.save(tmp_path / "a" / "x.png", transparency=0)
    pixels = read_one(tmp_path, "x.png")
    assert (pixels[:4] == 0).all()
    assert (pixels[4:] == RED).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    picture = np.repeat(np.uint16([0, 255, 257 * 100, 65535]), 16).reshape(8, 8)
    put_array(tmp_path / "a" / f"x.{suffix}", picture)
    assert sorted(set(read_one(tmp_path, f"x.{suffix}").ravel().tolist())) == [0, 1, 100, 255]


def test_thirty_two_bits_have_no_white(tmp_path):
    two_classes(tmp_path)
    put_array(tmp_path / "a" / "x.tif", np.ones((8, 8), np.float32))
    ((name, reason),) = read_folder(tmp_path, SMALL).skipped
    assert name == "a/x.tif"
    assert "save it with 8 or 16 bits" in reason


def test_cmyk(tmp_path):
    put(tmp_path / "a" / "x.jpg", (0, 255, 255, 0), mode="CMYK")
    assert np.abs(read_one(tmp_path, "x.jpg").astype(int) - RED).max() <= 3


def test_exif_turns_the_image(tmp_path):
    picture = np.zeros((16, 8, 3), np.uint8)
    picture[:8] = RED  # above
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter: what was above is then at the right
    put_array(tmp_path / "a" / "x.png", picture, exif=exif.tobytes())
    put_array(tmp_path / "a" / "y.jpg", picture, exif=exif.tobytes(), quality=95)
    pixels = read_one(tmp_path, "x.png")
    assert (pixels[:, 5:] == RED).all()
    assert (pixels[:, :3] == 0).all()
    assert read_one(tmp_path, "y.jpg")[:, 6:, 0].min() > 200
    assert sizes(tmp_path).classes[0].width[2] == 16, "the JPEG's, upright"


def test_damaged_exif_turns_nothing(tmp_path):
    put(tmp_path / "a" / "x.png", GREEN, exif=b"Exif\0\0anything")
    assert (read_one(tmp_path, "x.png") == GREEN).all()


@pytest.mark.parametrize("suffix", ["tif", "webp", "png", "mpo"])
def test_the_first_frame_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    (tmp_path / "a").mkdir()
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / "a" / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert np.abs(read_one(tmp_path, f"x.{suffix}").astype(int) - RED).max() <= 3


def test_images_are_stretched_and_every_pixel_counts(tmp_path):
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel in two: picked pixels would be black or white
    put_array(tmp_path / "a" / "x.png", stripes)
    assert read_one(tmp_path, "x.png", Wanted((8, 8), channels=3))[1:-1, 1:-1].mean() == pytest.approx(127.5, abs=3)
    two = np.zeros((32, 128, 3), np.uint8)
    two[:, :64] = RED
    put_array(tmp_path / "a" / "x.png", two)
    pixels = read_one(tmp_path, "x.png", Wanted((4, 6)))
    assert pixels.shape == (4, 6, 3)
    assert (pixels[:, :2] == RED).all()
    assert (pixels[:, 4:] == 0).all()


def test_a_large_jpeg_looks_as_a_small_one(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 1000)[:, None, None], (1000, 1000, 3)).astype(np.uint8)
    put_array(tmp_path / "a" / "x.jpg", ramp, quality=95)
    assert np.abs(read_one(tmp_path, "x.jpg")[:, 0, 0] - (np.arange(8) + 0.5) * 255 / 8).max() < 4


def test_what_cannot_be_decoded_is_listed_with_its_reason(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "a" / "half.jpg").write_bytes(image_bytes("JPEG")[:900])
    (tmp_path / "a" / "half.png").write_bytes(image_bytes("PNG")[:3000])
    (tmp_path / "a" / "begun.webp").write_bytes(image_bytes("WEBP")[:20])
    (tmp_path / "a" / "text.png").write_text("no image at all, but a text", encoding="utf-8")
    (tmp_path / "b" / "BM.bmp").write_text("BM is how this text begins", encoding="utf-8")
    (tmp_path / "b" / "empty.png").touch()
    put(tmp_path / "b" / "notes.gif")
    found = read_folder(tmp_path, SMALL)
    assert found.names == ("a/1.png", "b/1.png")
    reasons = dict(found.skipped)
    assert list(reasons) == [
        "a/begun.webp",
        "a/half.jpg",
        "a/half.png",
        "a/text.png",
        "b/BM.bmp",
        "b/empty.png",
        "b/notes.gif",
    ]
    assert all(reasons[name].startswith("damaged or not whole (") for name in ("a/half.jpg", "a/half.png"))
    assert {reasons["a/text.png"], reasons["b/notes.gif"]} == {"not a JPEG, PNG, BMP, WebP or TIFF"}
    assert reasons["b/empty.png"] == "empty"


def test_strict_names_the_first_ten_and_counts_the_others(tmp_path):
    two_classes(tmp_path)
    for number in range(12):
        (tmp_path / "a" / f"t{number:02}.png").write_text("text", encoding="utf-8")
    (tmp_path / "a" / "notes.txt").write_text("text", encoding="utf-8")
    assert len(read_folder(tmp_path, SMALL).skipped) == 13
    with pytest.raises(DataError) as refused:
        read_folder(tmp_path, replace(SMALL, strict=True))
    lines = str(refused.value).splitlines()
    assert lines[1] == "  a/t00.png: not a JPEG, PNG, BMP, WebP or TIFF"
    assert lines[10].startswith("  a/t09.png")
    assert lines[11:] == ["  and 2 more files that cannot be read"]


def test_strict_bears_files_that_do_not_claim_to_be_images(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "a" / "notes.txt").write_text("text", encoding="utf-8")
    (tmp_path / "README.md").write_text("text", encoding="utf-8")
    found = read_folder(tmp_path, replace(SMALL, strict=True))
    assert [name for name, _ in found.skipped] == ["README.md", "a/notes.txt"]


@pytest.mark.parametrize("pixels", [200_000, 70_000, 30_000])
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch, pixels):
    """Nor warned of: beyond our limit, and beyond Pillow's own, which warns, and then refuses before us."""
    two_classes(tmp_path)
    monkeypatch.setattr(decode, "MAX_PIXELS", 90_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    put(tmp_path / "a" / "bomb.png", size=(400, 300), mode="L", colour=0)
    with warnings.catch_warnings(record=True) as seen:
        found = read_folder(tmp_path, SMALL)
    ((name, reason),) = found.skipped
    assert name == "a/bomb.png"
    assert reason.startswith("more than 0 million pixels")
    assert reason.endswith("make it smaller")
    assert not seen


def test_a_file_of_any_size_is_not_read_whole(tmp_path, monkeypatch):
    from affinity_search.search.training.data.own import folder

    two_classes(tmp_path)
    monkeypatch.setattr(folder, "MAX_BYTES", 1 << 20)
    with (tmp_path / "a" / "huge.png").open("wb") as file:
        file.write(image_bytes("PNG"))
        file.truncate(1 << 33)
    with (tmp_path / "a" / "film.mp4").open("wb") as file:
        file.truncate(1 << 33)
    assert read_folder(tmp_path, SMALL).skipped == (
        ("a/film.mp4", "not a JPEG, PNG, BMP, WebP or TIFF"),
        ("a/huge.png", "larger than 1 MiB"),
    )


def test_size_and_channels_are_checked(tmp_path):
    with pytest.raises(ValueError, match="0×8"):
        Wanted((0, 8))
    with pytest.raises(ValueError, match="not 2"):
        Wanted((8, 8), channels=2)
    with pytest.raises(ValueError, match="size"):
        read_folder(two_classes(tmp_path), Wanted(None))
