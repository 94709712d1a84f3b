"""Objects found, made up and missed, counted over all pictures at one score threshold, as microscopy papers do.

Panoptic quality is that of Kirillov et al., "Panoptic Segmentation", section 4.1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from solov2.coco_metrics.records import GroundTruthSource, Record, Results, read_ground_truth, read_results

ALL_PICTURES = "all"
"""The group every picture belongs to."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Objects found, made up and missed; the quotients are NaN where there is nothing to divide by.

    Attributes:
        tp: detections matched to a true object.
        fp: detections matched to none.
        fn: true objects no detection was matched to.
        iou_sum: of the matched pairs.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    iou_sum: float = 0.0

    def __add__(self, other: Matching) -> Matching:
        return Matching(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou_sum + other.iou_sum)

    @property
    def score(self) -> float:
        """TP / (TP + FP + FN)."""
        return _quotient(self.tp, self.tp + self.fp + self.fn)

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the matched pairs."""
        return _quotient(self.iou_sum, self.tp)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matched IoUs / (TP + FP/2 + FN/2)."""
        return _quotient(self.iou_sum, self.tp + (self.fp + self.fn) / 2)


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def pooled_matching(
    gt_json: GroundTruthSource,
    results: Results,
    score_threshold: float,
    iou: float = 0.5,
    *,
    groups: Mapping[Hashable, str] | None = None,
) -> dict[str, Matching]:
    """Counts matches over all pictures.

    Within a picture and a class, detections choose in the order of their scores: each takes the free object it overlaps
    best, if the IoU is large enough. One that takes none is ignored where at least the share ``iou`` of it lies in a
    crowd, else it is false.

    Args:
        gt_json: COCO json, as a file or already read.
        results: COCO result records.
        score_threshold: 0..1; only detections of this score or more count.
        iou: 0..1, smallest IoU of a match.
        groups: picture id to group, for example a kind of microscope.

    Returns:
        The counts by group, and over all pictures as "all".

    Raises:
        DatasetError: the json or the records are no such thing, or do not belong together.
    """
    groups = groups or {}
    if ALL_PICTURES in groups.values():
        raise ValueError(f"a group is called {ALL_PICTURES!r}, which stands for all pictures; rename it")
    truth = read_ground_truth(gt_json)
    kept = [record for record in read_results(results, truth) if record["score"] >= score_threshold]
    objects, detections = _by_picture_and_class(truth.annotations), _by_picture_and_class(kept)
    counts = {ALL_PICTURES: Matching()} | {name: Matching() for name in sorted(set(groups.values()))}
    for key in sorted(objects.keys() | detections.keys()):
        match = _match(objects[key], detections[key], iou)
        for group in {ALL_PICTURES, groups.get(truth.image_ids[key[0]], ALL_PICTURES)}:
            counts[group] += match
    return counts


def _by_picture_and_class(records: Iterable[Record]) -> defaultdict[tuple[int, int], list[Record]]:
    sorted_records = defaultdict(list)
    for record in records:
        sorted_records[record["image_id"], record["category_id"]].append(record)
    return sorted_records


def _match(objects: list[Record], detections: list[Record], threshold: float) -> Matching:
    crowd = np.array([record["iscrowd"] for record in objects], bool)
    if not objects or not detections:
        return Matching(fp=len(detections), fn=int(np.count_nonzero(~crowd)))
    order = np.argsort([-record["score"] for record in detections], kind="stable")
    masks = [[record["segmentation"] for record in records] for records in (detections, objects)]
    ious = coco_mask.iou(*masks, crowd.astype(int).tolist())  # (D, N); for a crowd the share of the detection in it
    free = ~crowd
    matched: list[float] = []
    fp = 0
    for row in ious[order]:
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] >= threshold:
            free[best] = False
            matched.append(float(row[best]))
        elif not (row[crowd] >= threshold).any():
            fp += 1
    return Matching(len(matched), fp, int(np.count_nonzero(free)), math.fsum(matched))
