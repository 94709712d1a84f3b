"""Crumbs: small parts of a mask that lie apart from the rest of it.

A small network's masks sometimes scatter pixels over a neighbour. Published models are left alone: their numbers are
those of all their pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from solov2.structures import Instances, crop_to_extent

CONNECTIVITY = 8
"""Neighbours of a pixel, corners included."""

AREA = 4
"""Of OpenCV's statistics, the column of pixel counts."""


def without_crumbs(found: Instances, least_part: float) -> Instances:
    """Leaves out parts of masks.

    Args:
        found: instances of a picture.
        least_part: connected parts of a mask with fewer pixels than this share of its largest part's go; 0..1.
    """
    if least_part <= 0:
        return found
    boxes, crops = found.boxes.copy(), list(found.crops)
    for row, crop in enumerate(found.crops):
        swept = _swept(crop, least_part)
        if swept is not crop:
            left, top = (int(side) for side in found.boxes[row, :2])
            boxes[row], crops[row] = crop_to_extent(swept, (left, top))
    return replace(found, boxes=boxes, crops=tuple(crops))


def _swept(mask: npt.NDArray[np.bool_], least_part: float) -> npt.NDArray[np.bool_]:
    """The mask itself where nothing goes."""
    if mask.size == 0:
        return mask
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=CONNECTIVITY)
    areas = stats[1:, AREA]  # the first part is the background
    stays = areas >= least_part * areas.max(initial=0)
    if count <= 2 or stays.all():
        return mask
    kept: npt.NDArray[np.bool_] = np.concatenate([[False], stays])[parts]
    return kept
