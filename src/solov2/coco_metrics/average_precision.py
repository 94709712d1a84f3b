"""COCO mask AP from ground truth and result records.

The numbers are those of pycocotools, computed from what a :class:`~solov2.coco_metrics.tally.Tally` keeps.
Letters: T IoU thresholds, R recall steps, C classes, A area ranges, M limits of detections.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from solov2.coco_metrics.boundary import boundary_overlaps
from solov2.coco_metrics.records import GroundTruth, GroundTruthSource, Results, read_ground_truth
from solov2.coco_metrics.tally import AREA_RANGES, IOU_THRESHOLDS, Floats, Tally, mask_overlaps, skipped

RECALLS = np.linspace(0, 1, 101)
"""COCO's 0.00, 0.01 ... 1.00."""

_IOU_50, _IOU_75 = 0, 5  # positions among COCO's thresholds .50, .55 ... .95
_ALL_AREAS, _SMALL, _MEDIUM, _LARGE = range(4)  # positions among COCO's area ranges


@dataclass(frozen=True, slots=True)
class MaskAP:
    """The numbers of a COCO mask evaluation, 0..1; -1 where there is nothing to measure.

    Attributes:
        stats: the 12 numbers in COCO's order.
        names: what they are called; "AR@10" is the mean recall with 10 detections.
        per_class: AP by class name, for all the file's classes.
        max_dets: detections counted per picture and class.
        curves: precision at recall 0.00, 0.01 … 1.00 and IoU .50, (101,) each, by class name, for the classes
            that occur.
    """

    stats: tuple[float, ...]
    names: tuple[str, ...]
    per_class: dict[str, float]
    max_dets: int
    curves: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def ap(self) -> float:
        """Mean over the IoU thresholds .50, .55 ... .95."""
        return self.stats[0]

    @property
    def ap50(self) -> float:
        """At IoU .50."""
        return self.stats[1]

    @property
    def ap75(self) -> float:
        """At IoU .75."""
        return self.stats[2]

    def table(self, *, per_class: bool = False) -> list[str]:
        """Text lines of names and numbers; classes follow on request, best first."""
        pairs = list(zip(self.names, self.stats, strict=True))
        if per_class:
            measured = {name: value for name, value in self.per_class.items() if value >= 0}
            pairs += sorted(measured.items(), key=lambda item: -item[1])
        width = max(len(name) for name, _ in pairs)
        lines = [f"{name:<{width}}  {'    -' if value < 0 else f'{value:.3f}'}" for name, value in pairs]
        absent = len(self.per_class) - len(pairs) + len(self.stats)
        return [*lines, f"{absent} classes do not occur in the annotations"] if per_class and absent else lines


def mask_ap(gt_json: GroundTruthSource, results: Results, *, max_dets: int = 100, boundary: bool = False) -> MaskAP:
    """COCO mask AP.

    Neither argument is changed. With 100 detections the numbers are exactly those of pycocotools, for results
    without ``bbox`` and annotation ids that start at 1; it goes astray with others, this function does not.

    Args:
        gt_json: COCO json, as a file or already read.
        results: COCO result records; the masks as compressed RLE or lists of run lengths.
        max_dets: detections per picture and class that count, best first; 1 or more.
        boundary: compare masks near their outlines only, as :func:`~solov2.coco_metrics.boundary.boundary_overlaps`.

    Raises:
        DatasetError: the json or the records are no such thing, or do not belong together.
        MissingDependencyError: faster-coco-eval is needed for boundaries and not installed.
    """
    tally = Tally(read_ground_truth(gt_json), overlaps=boundary_overlaps() if boundary else mask_overlaps)
    tally.add(results)
    return ap_of(tally, max_dets)


def ap_of(tally: Tally, max_dets: int) -> MaskAP:
    """COCO mask AP of what was counted at COCO's IoU thresholds.

    Args:
        tally: of all pictures.
        max_dets: detections per picture and class that count, best first; 1 or more.
    """
    if max_dets < 1:
        raise ValueError(f"max_dets is {max_dets}, expected 1 or more")
    limits = sorted({1, 10, max_dets})
    precision, recall = _accumulate(tally, limits)
    used = [limits.index(1), limits.index(10), limits.index(max_dets)]
    return MaskAP(
        stats=_stats(precision, recall, used),
        names=_stat_names(max_dets),
        per_class=_per_class(precision[:, :, :, _ALL_AREAS, used[-1]], tally.truth),
        max_dets=max_dets,
        curves=_curves(precision[_IOU_50, :, :, _ALL_AREAS, used[-1]], tally.truth),
    )


Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Precision (T, R, C, A, M) and recall (T, C, A, M); -1 where there are no objects to find."""


def _accumulate(tally: Tally, limits: Sequence[int]) -> Arrays:
    """What pycocotools' ``COCOeval.accumulate`` makes of the matches, to the last bit."""
    levels, classes, areas = len(IOU_THRESHOLDS), len(tally.truth.categories), len(AREA_RANGES)
    precision = np.full((levels, len(RECALLS), classes, areas, len(limits)), -1.0)
    recall = np.full((levels, classes, areas, len(limits)), -1.0)
    wanted = _count_wanted(tally.truth)
    table = tally.table
    table = table[np.lexsort((-table["score"], table["category"]))]  # stable: equal scores stay in order
    ends = np.searchsorted(table["category"], np.arange(classes) + 1, side="right")
    for index, rows in enumerate(np.split(table, ends)[:classes]):
        for area, m in itertools.product(np.flatnonzero(wanted[:, index]), range(len(limits))):
            counted = rows[rows["rank"] < limits[m]]
            matched, ignored = counted["matched"][:, area], counted["ignored"][:, area]
            for level in range(levels):
                judged = ignored >> level & 1 == 0
                right = matched >> level & 1 == 1
                true, false = np.cumsum(right & judged), np.cumsum(~right & judged)
                found = true / wanted[area, index]
                recall[level, index, area, m] = found[-1] if len(found) else 0.0
                precision[level, :, index, area, m] = precision_at(true, false, found)
    return precision, recall


def precision_at(true: npt.NDArray[np.int64], false: npt.NDArray[np.int64], found: Floats) -> Floats:
    """Highest precision (R,) at a recall or beyond it, from running counts over the detections, best first."""
    precision = true / (false + true + np.spacing(1))
    best_from = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    at: Floats = best_from[np.searchsorted(found, RECALLS, side="left")]
    return at


def _count_wanted(truth: GroundTruth) -> npt.NDArray[np.int64]:
    """(A, C), objects that should be found."""
    labels = np.array([record["category_id"] for record in truth.annotations], np.int64)
    wanted = ~skipped(truth.annotations)
    counts = [np.bincount(labels[row], minlength=len(truth.categories) + 1)[1:] for row in wanted]
    return np.stack(counts)


def _stats(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64], used: list[int]) -> tuple[float, ...]:
    """COCO's 12 numbers; ``used`` are the positions of 1, 10 and the wanted number of detections."""
    one, ten, most = used
    cuts = [
        precision[:, :, :, _ALL_AREAS, most],
        precision[_IOU_50, :, :, _ALL_AREAS, most],
        precision[_IOU_75, :, :, _ALL_AREAS, most],
        *(precision[:, :, :, area, most] for area in (_SMALL, _MEDIUM, _LARGE)),
        *(recall[:, :, _ALL_AREAS, limit] for limit in (one, ten, most)),
        *(recall[:, :, area, most] for area in (_SMALL, _MEDIUM, _LARGE)),
    ]
    return tuple(_mean_of_measured(cut) for cut in cuts)


def _mean_of_measured(values: npt.NDArray[np.float64]) -> float:
    measured = values[values > -1]
    return float(np.mean(measured)) if measured.size else -1.0


def _stat_names(max_dets: int) -> tuple[str, ...]:
    recalls = [f"AR@{count}" for count in (1, 10, max_dets)]
    by_area = [[f"{kind} {area}" for area in ("small", "medium", "large")] for kind in ("AP", "AR")]
    return ("AP", "AP50", "AP75", *by_area[0], *recalls, *by_area[1])


def class_names(truth: GroundTruth) -> list[str]:
    """In the arrays' order; equal names are told apart by their ids."""
    names = [str(category.get("name", category["id"])) for category in truth.categories]
    ids = [category["id"] for category in truth.categories]
    return [name if names.count(name) == 1 else f"{name} ({id_})" for name, id_ in zip(names, ids, strict=True)]


def _per_class(precision: npt.NDArray[np.float64], truth: GroundTruth) -> dict[str, float]:
    """AP by class name from precision (T, R, C)."""
    return {name: _mean_of_measured(precision[:, :, index]) for index, name in enumerate(class_names(truth))}


def _curves(precision: npt.NDArray[np.float64], truth: GroundTruth) -> dict[str, npt.NDArray[np.float64]]:
    """Curves by class name from precision (R, C)."""
    measured = np.asarray(np.any(precision > -1, axis=0))
    return {name: precision[:, index] for index, name in enumerate(class_names(truth)) if measured[index]}
