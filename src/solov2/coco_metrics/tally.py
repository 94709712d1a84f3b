"""Matches of detections with true objects, picture by picture: what AP needs of a detection once its mask is gone.

The matching is that of COCO's evaluation (pycocotools, ``COCOeval.evaluateImg``). A detection leaves 38 bytes behind,
however large the picture.
Letters: D detections and N objects of one picture and class, A area ranges, T IoU thresholds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from solov2.coco_metrics.records import GroundTruth, Record, Results, read_results

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.void]
"""Rows of :data:`MATCHES`."""

Overlaps = Callable[[list[Record], list[Record], Bools], Floats]
"""IoU (D, N) of RLEs with RLEs, the latter's crowds given; with a crowd it is the share of the detection in it."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's .50, .55 ... .95."""

AREA_RANGES = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
"""COCO's all, small, medium and large, in pixels, both ends inclusive."""

MATCHES = np.dtype(
    [
        ("category", np.uint16),
        ("score", np.float64),
        ("rank", np.uint32),
        ("overlap", np.float64),
        ("matched", np.uint16, len(AREA_RANGES)),
        ("ignored", np.uint16, len(AREA_RANGES)),
    ]
)
"""One detection. ``category`` counts from 1, ``rank`` from 0 within picture and class, the best first. ``overlap`` is
the IoU with its object at the first threshold and all areas, 0 without one. Bit t of ``matched`` and ``ignored`` is
for threshold t: it has an object; it counts neither as right nor as wrong."""


def mask_overlaps(found: list[Record], objects: list[Record], crowd: Bools) -> Floats:
    """IoU of masks."""
    return np.asarray(coco_mask.iou(found, objects, crowd.astype(int).tolist()))


class Tally:
    """Counts what is found in one picture after the other, and keeps no mask of it.

    Args:
        truth: the true objects.
        thresholds: IoU thresholds, 16 at most.
        overlaps: how IoU is measured.

    Attributes:
        by_picture: matches by the picture's position; pictures without detections need none.
    """

    def __init__(
        self,
        truth: GroundTruth,
        thresholds: Sequence[float] | Floats = IOU_THRESHOLDS,
        overlaps: Overlaps = mask_overlaps,
    ) -> None:
        self.truth = truth
        self.by_picture: dict[int, Table] = {}
        self._thresholds = np.asarray(thresholds, np.float64)
        self._overlaps = overlaps
        self._objects = grouped(truth.annotations)

    def add(self, results: Results) -> None:
        """Takes in all results of one or several pictures, of each at once.

        Raises:
            DatasetError: as :func:`~solov2.coco_metrics.records.read_results`.
        """
        tables = defaultdict(list)
        for (picture, category), found in sorted(grouped(read_results(results, self.truth)).items()):
            tables[picture].append(self._match(found, self._objects.get((picture, category), []), category))
        self.by_picture.update({picture: np.concatenate(parts) for picture, parts in tables.items()})

    @property
    def table(self) -> Table:
        """All matches, in the order of the pictures."""
        return np.concatenate(
            [np.empty(0, MATCHES), *(self.by_picture[picture] for picture in sorted(self.by_picture))]
        )

    def _match(self, found: list[Record], objects: list[Record], category: int) -> Table:
        found = sorted(found, key=lambda record: -record["score"])
        table = np.zeros(len(found), MATCHES)
        table["category"], table["rank"] = category, np.arange(len(found))
        table["score"] = [record["score"] for record in found]
        masks = [record["segmentation"] for record in found]
        matched = np.zeros((len(found), len(AREA_RANGES), len(self._thresholds)), bool)
        ignored = np.zeros_like(matched)
        if objects:
            crowd = np.array([record["iscrowd"] for record in objects], bool)
            overlaps = self._overlaps(masks, [record["segmentation"] for record in objects], crowd)
            pairs = pair(overlaps, crowd, skipped(objects), self._thresholds)
            matched, ignored, table["overlap"] = pairs.matched, pairs.ignored, pairs.overlap
        areas = np.array([coco_mask.area(rle) for rle in masks], np.float64)  # all at once it takes 255 at most
        ignored |= ~matched & _outside(areas).T[:, :, None]
        bits = 1 << np.arange(len(self._thresholds))
        table["matched"], table["ignored"] = matched @ bits, ignored @ bits
        return table


def grouped(records: Iterable[Record]) -> dict[tuple[int, int], list[Record]]:
    """Records by picture and class."""
    groups = defaultdict(list)
    for record in records:
        groups[record["image_id"], record["category_id"]].append(record)
    return groups


def skipped(objects: Sequence[Record]) -> Bools:
    """(A, N): objects that need not be found: crowds, and those of another size."""
    areas = np.array([record["area"] for record in objects], np.float64)
    return np.asarray(_outside(areas) | np.array([record["iscrowd"] for record in objects], bool), bool)


def _outside(areas: Floats) -> Bools:
    """(A, N)."""
    return np.asarray((areas < AREA_RANGES[:, :1]) | (areas > AREA_RANGES[:, 1:]), bool)


@dataclass(frozen=True, slots=True)
class Pairs:
    """What became of the detections of one picture and class.

    Attributes:
        matched: (D, A, T), has an object.
        ignored: (D, A, T), has one that need not be found.
        overlap: (D,), IoU with its object in the first area range at the first threshold, 0 without one that counts.
    """

    matched: Bools
    ignored: Bools
    overlap: Floats


def pair(overlaps: Floats, crowd: Bools, skipped: Bools, thresholds: Floats) -> Pairs:
    """Detections take objects, best detection first: each the free one it overlaps best.

    One that finds none takes the best of those that need not be found, of which crowds stay free; of equal overlaps
    the last object is taken.

    Args:
        overlaps: (D, N) IoU.
        crowd: (N,).
        skipped: (A, N), objects that need not be found.
        thresholds: (T,), smallest IoU, inclusive.
    """
    least = np.minimum(thresholds, 1 - 1e-10)  # COCO's: rounding must not cost a perfect match
    shape = (len(overlaps), len(skipped), len(least))
    pairs = Pairs(np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape[0]))
    free = np.ones((*shape[1:], len(crowd)), bool)
    areas, levels = np.ogrid[: shape[1], : shape[2]]
    for number in np.flatnonzero((overlaps >= least.min()).any(axis=1)):
        row = overlaps[number]
        near = np.flatnonzero(row >= least.min())
        # From worst to best, so that the last free one is taken.
        keys = np.broadcast_to(row[near], (len(skipped), len(near))), ~skipped[:, near]
        order = near[np.lexsort(keys)][:, None]  # (A, 1, near)
        takes = free[areas[..., None], levels[..., None], order] & (row[order] >= least[:, None])  # (A, T, near)
        last = len(near) - 1 - takes[..., ::-1].argmax(axis=2)
        area, level = np.nonzero(takes.any(axis=2))
        taken = order[area, 0, last[area, level]]
        free[area, level, taken] = crowd[taken]
        pairs.matched[number, area, level] = True
        pairs.ignored[number, area, level] = skipped[area, taken]
        if takes[0, 0].any() and not skipped[0, taken[0]]:
            pairs.overlap[number] = row[taken[0]]
    return pairs
