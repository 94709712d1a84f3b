"""Bytes of a request become a picture: its size is looked at before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from http import HTTPStatus

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import MARKER

from solov2.data.image import RGB, read_image
from solov2.errors import ImageError
from solov2.serve.refusals import RefusedError, bad, too_large, unusable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read; some of Pillow's other formats start programs or are rarely looked at."""

MAX_SCANS = 100
"""Passes of a progressive JPEG, which has about ten: each visits all pixels, and a small file can hold thousands."""

MAX_PARTS = 20_000
"""Markers, and bytes between them, in a JPEG's head; chunks of a PNG. Good files have hundreds, and each is read by a
step of Python: 32 MB of nothing else would keep a core busy for more than a minute."""

_SCAN = b"\xff\xda"  # within a scan's data no 0xFF is followed by this
DEEP_SHARE = 4
"""Pictures of more than 8 bits take several times the memory while they are scaled; they may have that much less."""

DATA_ADDRESS = b"data:"
"""How a base64 text begins that a web page made."""


def open_picture(data: bytes, max_pixels: int) -> Image.Image:
    """Reads a picture's head.

    Args:
        data: of the file.
        max_pixels: width times height at most.

    Raises:
        RefusedError: 400 if there are no bytes, 415 if they are no picture, 413 if it has too many pixels, 422 if it
            is damaged.
    """
    if not data:
        raise bad("the picture has no bytes; expected a JPEG, PNG, WebP, BMP, GIF or TIFF file")
    if _has_many_parts(data):
        raise unusable(f"the picture's file is in more than {MAX_PARTS} parts; save it anew")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused below, and of odd metadata
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise too_large(f"the picture has far more than {max_pixels} pixels; scale it down first") from None
    except UnidentifiedImageError:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not a picture of a known format; expected JPEG, PNG, WebP, BMP, GIF or TIFF",
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise unusable(f"damaged or unreadable picture ({error})") from None
    width, height = image.size
    most = max_pixels // DEEP_SHARE if image.mode.startswith(("I", "F")) else max_pixels
    if width * height > most:
        raise too_large(f"the picture is {width}x{height}; at most {most} pixels are taken: scale it down first")
    if image.format in ("JPEG", "MPO") and (scans := data.count(_SCAN)) > MAX_SCANS:
        raise unusable(f"the JPEG has {scans} scans; at most {MAX_SCANS} are read: save it anew")
    return image


def _has_many_parts(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        step, at = _after_marker, 2
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        step, at = _after_chunk, 8
    else:
        return False
    for _ in range(MAX_PARTS):
        at = step(data, at)
        if at >= len(data):
            return False
    return True


def _after_marker(data: bytes, at: int) -> int:
    """The place that Pillow looks at after this one, in a JPEG's head; the end, where the head ends."""
    first, second = data[at], int.from_bytes(data[at + 1 : at + 2])
    if first != 0xFF or second == 0xFF:
        return at + 1
    marker = 0xFF00 + second
    if second == 0:
        return at + 2
    if marker == 0xFFDA or marker not in MARKER:
        return len(data)
    holds_data = MARKER[marker][2] is not None
    return at + 2 + (max(2, int.from_bytes(data[at + 2 : at + 4])) if holds_data else 0)


def _after_chunk(data: bytes, at: int) -> int:
    return len(data) if data[at + 4 : at + 8] == b"IEND" else at + 12 + int.from_bytes(data[at : at + 4])


def decode_picture(image: Image.Image) -> RGB:
    """Decodes a picture: (H, W, 3) RGB, EXIF orientation applied, of an animation the first frame.

    Raises:
        RefusedError: 422 if it is damaged.
    """
    try:
        return read_image(image)
    except ImageError as error:
        raise unusable(str(error)) from None
    except Exception as error:  # formats have failures of their own, and none is worth the service
        raise unusable(f"damaged or unreadable picture ({type(error).__name__})") from None


def decode_base64(text: str, what: str) -> bytes:
    """The bytes of a base64 text, which may be broken into lines or be a web page's ``data:`` address.

    Raises:
        RefusedError: 400 if it is none.
    """
    try:
        plain = text.encode("ascii")
        if plain[: len(DATA_ADDRESS)] == DATA_ADDRESS:
            plain = plain.partition(b",")[2]
        return base64.b64decode(b"".join(plain.split()), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        reason = "not ASCII" if isinstance(error, UnicodeEncodeError) else error
        raise bad(f"{what}: no base64 ({reason}); expected the bytes of a picture file in base64") from None
