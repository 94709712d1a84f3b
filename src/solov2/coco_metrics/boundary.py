"""How well outlines agree: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation"."""

from __future__ import annotations

import importlib.util

import numpy as np
from pycocotools import mask as coco_mask

from solov2.coco_metrics.records import Record
from solov2.coco_metrics.tally import Bools, Floats, Overlaps, mask_overlaps
from solov2.errors import MissingDependencyError


def boundary_overlaps() -> Overlaps:
    """The smaller one of mask IoU and boundary IoU; for a crowd it is the share of the detection in it.

    faster-coco-eval cuts out the masks' borders.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise MissingDependencyError("faster-coco-eval", "boundary", "boundary AP")
    from faster_coco_eval.core.mask import rleToBoundary

    def overlaps(found: list[Record], objects: list[Record], crowd: Bools) -> Floats:
        masks = mask_overlaps(found, objects, crowd)
        borders = [[rleToBoundary(rle) for rle in side] for side in (found, objects)]
        outlines = np.asarray(coco_mask.iou(*borders, crowd.astype(int).tolist()))
        return np.where(crowd, masks, np.minimum(masks, outlines))

    return overlaps
