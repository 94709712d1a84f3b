"""Objects found, made up and missed, counted over all pictures at one score threshold, as microscopy papers do.

Panoptic quality is that of Kirillov et al., "Panoptic Segmentation", section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from solov2.coco_metrics.records import GroundTruth, GroundTruthSource, Results, read_ground_truth
from solov2.coco_metrics.tally import Table, Tally

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
    tally = Tally(read_ground_truth(gt_json), [iou])
    tally.add(results)
    return matching_of(tally, score_threshold, groups)


def matching_of(
    tally: Tally, score_threshold: float, groups: Mapping[Hashable, str] | None = None
) -> dict[str, Matching]:
    """Counts matches at the first of a tally's IoU thresholds; arguments as for :func:`pooled_matching`.

    A detection chooses before all of lower scores, so that a score threshold changes nothing for those above it.
    """
    groups = groups or {}
    if ALL_PICTURES in groups.values():
        raise ValueError(f"a group is called {ALL_PICTURES!r}, which stands for all pictures; rename it")
    objects = np.bincount(_wanted(tally.truth), minlength=len(tally.truth.image_ids))
    counts = {ALL_PICTURES: Matching()} | {name: Matching() for name in sorted(set(groups.values()))}
    for picture, image_id in enumerate(tally.truth.image_ids):
        match = Matching(fn=int(objects[picture]))
        if picture in tally.by_picture:
            table = tally.by_picture[picture]
            match = _count(table[table["score"] >= score_threshold], int(objects[picture]))
        for group in {ALL_PICTURES, groups.get(image_id, ALL_PICTURES)}:
            counts[group] += match
    return counts


def best_threshold(tally: Tally) -> float | None:
    """The score that separates right from wrong best.

    Of 0.10, 0.15 … 0.90 the threshold with the highest pooled TP / (TP + FP + FN) at the first of the tally's IoU
    thresholds; None where nothing right was found at any of them.
    """
    table, objects = tally.table, len(_wanted(tally.truth))
    thresholds = np.arange(0.1, 0.901, 0.05).round(2).tolist()
    scores = np.nan_to_num([_count(table[table["score"] >= each], objects).score for each in thresholds])
    return float(thresholds[int(np.argmax(scores))]) if scores.max() > 0 else None


def _count(table: Table, objects: int) -> Matching:
    judged, matched = (table[name][:, 0] & 1 == value for name, value in (("ignored", 0), ("matched", 1)))
    tp = int(np.count_nonzero(judged & matched))
    fp = int(np.count_nonzero(judged & ~matched))
    return Matching(tp, fp, objects - tp, math.fsum(table["overlap"]))


def _wanted(truth: GroundTruth) -> list[int]:
    """The picture of every object that should be found."""
    return [record["image_id"] for record in truth.annotations if not record["iscrowd"]]
