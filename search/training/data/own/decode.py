"""From the bytes of an image file to pixels. The same bytes give the same pixels, whatever the file is called."""

import io
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Raise the number when the same bytes give other pixels: what caches keep is then decoded again. Another Pillow may
# bring another JPEG library, which rounds otherwise.
VERSION = f"1-{PIL.__version__}"
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff")
MAX_PIXELS = 150_000_000  # a small file may unpack to any size; 150 million are 450 MB, and twice a large photograph
HEAD = 16  # bytes by which a format is known
NO_IMAGE = "not a JPEG, PNG, BMP, WebP or TIFF"
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Resampling = Image.Resampling


class Unreadable(Exception):  # noqa: N818 - a property of the file
    """The reason, for a list."""


def may_be_image(head: bytes) -> bool:
    """Whether a file that begins so is of one of the formats."""
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def called_image(name: str) -> bool:
    """Whether the name says so."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def opened(file: Any) -> Image.Image:
    """An image whose header alone has been read. Raises Unreadable if it is no image, or too large to unpack."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable(NO_IMAGE) from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged header raises errors of struct, zlib, the system and Pillow
        raise Unreadable(_damage(error)) from error
    if image.width * image.height > MAX_PIXELS:
        limit = f"more than {MAX_PIXELS // 1_000_000} million pixels"
        raise Unreadable(f"{limit} ({image.height}×{image.width}); make it smaller")
    return image


def decode(data: bytes, size: tuple[int, int], channels: Literal[1, 3] | None = None) -> NDArray[np.uint8]:
    """The first frame as (height, width, 1 or 3), upright as EXIF says, stretched to `size` (height, width in pixels).

    One channel if all pixels are grey, whatever the file says, and where `channels` is 1.
    Raises Unreadable with the reason.
    """
    image = opened(io.BytesIO(data))
    try:
        # A JPEG far larger than needed is unpacked at a half, a quarter or an eighth of its size.
        image.draft(None, (2 * max(size), 2 * max(size)))
        image.load()
        return pixels(_plain(_upright(image)), size, channels)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # as above
        raise Unreadable(_damage(error)) from error


def pixels(image: Image.Image, size: tuple[int, int], channels: Literal[1, 3] | None) -> NDArray[np.uint8]:
    """Of an image of mode L or RGB, as `decode` gives them.

    Bilinear, over all pixels that a smaller one covers. Other than Lanczos' it makes no edges brighter than they are.
    """
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Resampling.BILINEAR, reducing_gap=3.0)
    if channels == 1 and image.mode != "L":
        image = image.convert("L")
    array = np.asarray(image)
    if array.ndim == 2:
        return array[..., None]
    red, green, blue = array[..., 0], array[..., 1], array[..., 2]
    # One row tells most pictures apart.
    is_grey = np.array_equal(red[0], green[0]) and np.array_equal(red, green) and np.array_equal(red, blue)
    return array[..., :1] if is_grey else array


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:
        return image  # EXIF that cannot be read turns nothing, in no viewer
    return image


def _plain(image: Image.Image) -> Image.Image:
    """As 8 bits, grey (L) or colour (RGB)."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8))  # 65535 becomes 255
    if image.mode in ("I", "F"):
        raise Unreadable("32 bits a pixel, of which nobody knows what is white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        # Upon black, which is also what an augmentation moves in. What colour a clear pixel hides is chance.
        colour = image.convert("RGBA")
        below = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return Image.alpha_composite(below, colour).convert("RGB")
    if image.mode == "L":
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _damage(error: Exception) -> str:
    said = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return f"damaged or not whole ({said[0]})"
