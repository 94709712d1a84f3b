"""Bytes of a JPEG become pixels, where there is nothing about it to decide.

Segments and markers: ITU-T T.81, annex B.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

START, END = b"\xff\xd8", b"\xff\xd9"
MARKER = 0xFF
FRAMES = (0xC0, 0xC1, 0xC2)
"""Markers of the frame header: baseline, extended sequential, progressive."""

PLAIN = (0xC4, 0xDB, 0xDD, 0xE0, 0xFE)
"""Markers of tables, JFIF headers and comments. Others say how a picture lies, what its colours are, what follows."""


def is_plain(data: bytes, max_pixels: int | None) -> bool:
    """Whether a file's headers leave nothing to decide: a JPEG of three colours, without metadata of its position.

    Args:
        data: the whole file.
        max_pixels: more are not plain; None: any number is.
    """
    if not data.startswith(START):
        return False
    position = len(START)
    while position + 10 <= len(data) and data[position] == MARKER:
        marker = data[position + 1]
        if marker in FRAMES:
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            depth, colors = data[position + 4], data[position + 9]
            return (depth, colors) == (8, 3) and (max_pixels is None or height * width <= max_pixels)
        if marker not in PLAIN:
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def decode(data: bytes) -> npt.NDArray[np.uint8] | None:
    """The pixels of a whole JPEG of three colours, as they lie in the file: (H, W, 3) RGB; None if it is damaged.

    OpenCV decodes by the same rules as Pillow, to the same values, but straight into an array.
    """
    if not data.endswith(END):  # some versions of OpenCV make up what is missing
        return None
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), np.uint8)
