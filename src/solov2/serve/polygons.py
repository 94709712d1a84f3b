"""Masks as polygons in COCO's form: a list of outlines, each x0 y0 x1 y1 ... in pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SUBPIXELS = 2
"""Outlines run through the middles of pixels: of doubled ones they enclose the middle of every pixel of the mask."""


def outlines(crop: npt.NDArray[np.bool_], x0: int, y0: int) -> list[list[float]]:
    """The outer outlines of a mask; holes are filled, as COCO's polygons have none.

    Args:
        crop: (h, w), the mask inside its box.
        x0: of the box.
        y0: of the box.

    Returns:
        One list a connected part, at least three points each, in pixels of the picture: pixel (0, 0) covers 0..1.
    """
    doubled = crop.astype(np.uint8).repeat(SUBPIXELS, 0).repeat(SUBPIXELS, 1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [(contour.reshape(-1, 2) + 0.5) / SUBPIXELS + (x0, y0) for contour in contours]
    return [part.ravel().tolist() for part in parts]
