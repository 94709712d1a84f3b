"""What is suspicious in a COCO json although it can be used: training goes on with it, so a person should look."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as rle_codec

from solov2.data.coco import CocoFile, is_crowd
from solov2.data.coco_checks import Problem, compressed, usable_parts

LEAST_AGREEMENT = 0.5
"""Intersection over union of an annotation's box and its segmentation's extent; less is no rounding."""


def find_suspicious(file: CocoFile) -> list[Problem]:
    """Boxes that are not around their segmentation, objects annotated twice, ids that occur twice."""
    return [*_boxes(file), *_repeated(file)]


def _annotations(file: CocoFile) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for image in file.images:
        for annotation in file.annotations[image["id"]]:
            yield image, annotation


def _boxes(file: CocoFile) -> Iterator[Problem]:
    for image, annotation in _annotations(file):
        if is_crowd(annotation):
            continue
        extent = _extent(annotation["segmentation"])
        if _overlap(annotation["bbox"], extent) < LEAST_AGREEMENT:
            shown = ", ".join(f"{value:.0f}" for value in extent)
            yield Problem(
                "box that is not around its segmentation",
                f"annotation {annotation.get('id', '?')} ({image['file_name']}): box {annotation['bbox']}; its "
                f"segmentation spans [{shown}] (x, y, width, height)",
            )


def _extent(segmentation: Any) -> list[float]:
    if isinstance(segmentation, dict):
        box: list[float] = rle_codec.toBbox(compressed(segmentation)).tolist()
        return box
    points = np.concatenate(usable_parts(segmentation))
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _overlap(box: list[float], other: list[float]) -> float:
    sides = [
        min(box[axis] + box[axis + 2], other[axis] + other[axis + 2]) - max(box[axis], other[axis]) for axis in (0, 1)
    ]
    shared = max(sides[0], 0.0) * max(sides[1], 0.0)
    return shared / (box[2] * box[3] + other[2] * other[3] - shared)


def _repeated(file: CocoFile) -> Iterator[Problem]:
    ids = Counter(annotation["id"] for _, annotation in _annotations(file) if "id" in annotation)
    first: dict[bytes, Any] = {}
    for image, annotation in _annotations(file):
        number = annotation.get("id", "?")
        if ids.get(number, 0) > 1:
            yield Problem("id that occurs twice", f"annotation {number} ({image['file_name']}): {ids[number]} times")
        what = _fingerprint(image["id"], annotation["category_id"], annotation["segmentation"])
        if what in first:
            yield Problem(
                "object annotated twice",
                f"annotation {number} ({image['file_name']}): same class and segmentation as annotation {first[what]}",
            )
        first.setdefault(what, number)


def _fingerprint(*values: Any) -> bytes:
    """Short, as a large data set has many polygons."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()
