"""Reading pictures: a path, a PIL image or an array becomes (H, W, 3) uint8 RGB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from solov2.data import jpeg
from solov2.errors import ImageError

RGB = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, red first."""

ImageLike = str | Path | Image.Image | npt.NDArray[np.uint8]
"""What people have: a path, a PIL image, or an array (H, W, 3) BGR or (H, W) grey, uint8."""

SIXTEEN_TO_EIGHT_BITS = 257
"""65535 / 255."""

EXIF_ORIENTATION = 0x0112
UPRIGHT = 1
LYING = range(5, 9)
"""Orientations that lay the picture on its side."""


def read_image(source: ImageLike) -> RGB:
    """Reads a picture as a person sees it: EXIF orientation applied, transparency over white.

    Args:
        source: a path, a PIL image of any mode, or a uint8 array, (H, W, 3) in BGR order as OpenCV
            gives it or (H, W) grey.

    Raises:
        ImageError: if it is missing, empty, damaged, too large to be meant, or of another form.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        with _named_errors("the picture"):
            return _from_pil(source, "the picture")
    path = Path(source)
    with _named_errors(str(path)):
        return _from_file(path)


def laid_out(image: RGB) -> RGB:
    """The same picture with its pixels in order.

    A flip costs nothing as a view with its columns counted backwards, and little where the picture is copied in any
    case; but other work on such a view is many times as slow as on pixels in order.
    """
    return np.asarray(cv2.flip(image[:, ::-1], 1), np.uint8) if _is_mirrored(image) else image


def lay_out(image: RGB, target: RGB) -> None:
    """Copies a picture, mirrored view or not, into a part of an array of the same size."""
    if _is_mirrored(image):
        cv2.flip(image[:, ::-1], 1, dst=target)
    else:
        target[:] = image


def _is_mirrored(image: RGB) -> bool:
    return image.strides[1] < 0


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture file as :func:`read_image` would give it, from its header alone.

    Raises:
        ImageError: if there is no picture.
    """
    with _named_errors(str(path)), _open(path) as image:
        width, height = image.size
        # PNG's own method decodes all pixels first, as its EXIF may also stand behind them.
        turned = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1) in LYING
    return (width, height) if turned else (height, width)


def _open(path: Path) -> ImageFile.ImageFile:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty; expected a picture") from None
        raise


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns what Pillow and the file system raise into one line about ``name``."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and of odd metadata; neither keeps it from reading them.
            warnings.simplefilter("ignore")
            yield
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; give the path of a picture") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder; expected the path of a picture") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture of a known format; expected JPEG, PNG, BMP, TIFF or WebP") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}; scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name}: damaged or unreadable picture ({error})") from None


def _from_array(array: npt.NDArray[np.uint8]) -> RGB:
    grey, bgr = array.ndim == 2, array.ndim == 3 and array.shape[-1] == 3
    if array.dtype != np.uint8 or not (grey or bgr) or array.size == 0:
        raise ImageError(
            f"the array has shape {array.shape} and type {array.dtype}; "
            "expected (H, W, 3) in BGR order or (H, W) grey, uint8, not empty"
        )
    return np.repeat(array[:, :, None], 3, axis=2) if grey else np.ascontiguousarray(array[:, :, ::-1])


def _from_file(path: Path) -> RGB:
    """By way of Pillow, except for the pixels of upright colour JPEGs."""
    with path.open("rb") as stream:
        start = stream.read(len(jpeg.START))
        data = start + stream.read() if start == jpeg.START else b""
    picture = jpeg.decode(data) if jpeg.is_plain(data, Image.MAX_IMAGE_PIXELS) else None
    if picture is not None:
        return picture
    with _open(path) as image:
        if image.format == "JPEG" and image.mode == "RGB" and _is_upright(image):
            picture = jpeg.decode(data)
        return _from_pil(image, str(path)) if picture is None else picture


def _is_upright(image: Image.Image) -> bool:
    return bool(image.getexif().get(EXIF_ORIENTATION, UPRIGHT) == UPRIGHT)


def _from_pil(image: Image.Image, name: str) -> RGB:
    if 0 in image.size:
        raise ImageError(f"{name}: has no pixel, its size is {image.width}x{image.height}")
    turned = image if _is_upright(image) else ImageOps.exif_transpose(image)  # which copies in any case
    if turned.mode.startswith("I") or turned.mode == "F":
        return _from_deep(np.asarray(turned), name)
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        rgba = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))


def _from_deep(values: npt.NDArray[np.generic], name: str) -> RGB:
    """Grey pictures with more than 8 bits: 16-bit ones scaled, others cut to 0..255."""
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ImageError(f"{name}: has pixels that are no numbers; expected values of 0..65535")
    if numbers.max() > 255:
        numbers = numbers / SIXTEEN_TO_EIGHT_BITS
    grey = numbers.round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
