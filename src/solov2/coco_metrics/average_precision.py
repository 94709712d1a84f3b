"""COCO mask AP from ground truth and result records.

The evaluation is pycocotools'; hotcoco, where it is installed, computes the very same arrays many times faster.
Letters: T IoU thresholds, R recall steps, C classes, A area ranges, M limits of detections.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from solov2.coco_metrics.records import GroundTruth, GroundTruthSource, Record, Results, read_ground_truth, read_results
from solov2.errors import MissingDependencyError

Backend = Literal["auto", "pycocotools", "hotcoco"]

_IOU_50, _IOU_75 = 0, 5  # positions among COCO's thresholds .50, .55 ... .95
_ALL_AREAS, _SMALL, _MEDIUM, _LARGE = range(4)  # positions among COCO's area ranges


@dataclass(frozen=True, slots=True)
class MaskAP:
    """The numbers of a COCO mask evaluation, 0..1; -1 where there is nothing to measure.

    Attributes:
        stats: the 12 numbers in COCO's order.
        names: what they are called; "AR@10" is the mean recall with 10 detections.
        per_class: AP by class name, for all the file's classes.
        backend: the library that computed them.
        max_dets: detections counted per picture and class.
    """

    stats: tuple[float, ...]
    names: tuple[str, ...]
    per_class: dict[str, float]
    backend: str
    max_dets: int

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
            pairs += sorted(self.per_class.items(), key=lambda item: -item[1])
        width = max(len(name) for name, _ in pairs)
        return [f"{name:<{width}}  {'    -' if value < 0 else f'{value:.3f}'}" for name, value in pairs]


def mask_ap(gt_json: GroundTruthSource, results: Results, *, max_dets: int = 100, backend: Backend = "auto") -> MaskAP:
    """COCO mask AP.

    Neither argument is changed. With 100 detections the numbers are exactly those of pycocotools, for results
    without ``bbox`` and annotation ids that start at 1; it goes astray with others, this function does not.

    Args:
        gt_json: COCO json, as a file or already read.
        results: COCO result records; the masks as compressed RLE or lists of run lengths.
        max_dets: detections per picture and class that count, best first; 1 or more.
        backend: "auto" is hotcoco where it is installed.

    Raises:
        DatasetError: the json or the records are no such thing, or do not belong together.
        MissingDependencyError: hotcoco is asked for and not installed.
    """
    if max_dets < 1:
        raise ValueError(f"max_dets is {max_dets}, expected 1 or more")
    truth = read_ground_truth(gt_json)
    detections = read_results(results, truth)
    limits = sorted({1, 10, max_dets})
    engine = _choose_backend(backend) if detections else "pycocotools"  # hotcoco takes no empty list
    compute = _hotcoco_arrays if engine == "hotcoco" else _pycocotools_arrays
    precision, recall = compute(truth, detections, limits)
    used = [limits.index(1), limits.index(10), limits.index(max_dets)]
    return MaskAP(
        stats=_stats(precision, recall, used),
        names=_stat_names(max_dets),
        per_class=_per_class(precision[:, :, :, _ALL_AREAS, used[-1]], truth),
        backend=engine,
        max_dets=max_dets,
    )


def _choose_backend(backend: Backend) -> Literal["pycocotools", "hotcoco"]:
    if backend not in ("auto", "pycocotools", "hotcoco"):
        raise ValueError(f"backend is {backend!r}, expected 'auto', 'pycocotools' or 'hotcoco'")
    if backend == "pycocotools":
        return "pycocotools"
    if importlib.util.find_spec("hotcoco") is not None:
        return "hotcoco"
    if backend == "hotcoco":
        raise MissingDependencyError("hotcoco", "train", "backend='hotcoco'")
    return "pycocotools"


Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Precision (T, R, C, A, M) and recall (T, C, A, M); -1 where there are no objects to find."""


def _pycocotools_arrays(truth: GroundTruth, detections: list[Record], limits: list[int]) -> Arrays:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sides = COCO(), COCO()
        for side, annotations in zip(sides, (truth.annotations, detections), strict=True):
            side.dataset = truth.dataset | {"annotations": [dict(record) for record in annotations]}
        for number, record in enumerate(sides[1].dataset["annotations"], start=1):
            # What its loadRes adds; that method fails on an empty list.
            record |= {"id": number, "iscrowd": 0, "area": coco_mask.area(record["segmentation"])}
        for side in sides:
            side.createIndex()
        evaluation = COCOeval(*sides, iouType="segm")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _hotcoco_arrays(truth: GroundTruth, detections: list[Record], limits: list[int]) -> Arrays:
    import hotcoco

    annotated = hotcoco.COCO(truth.dataset)
    evaluation = hotcoco.COCOeval(annotated, annotated.load_res(detections), "segm")
    evaluation.params.max_dets = limits
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = evaluation.eval
    assert arrays is not None
    return np.asarray(arrays["precision"]), np.asarray(arrays["recall"])


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


def _per_class(precision: npt.NDArray[np.float64], truth: GroundTruth) -> dict[str, float]:
    """AP by class name from precision (T, R, C); equal names are told apart by their ids."""
    names = [str(category.get("name", category["id"])) for category in truth.categories]
    ids = [category["id"] for category in truth.categories]
    keys = [name if names.count(name) == 1 else f"{name} ({id_})" for name, id_ in zip(names, ids, strict=True)]
    return {key: _mean_of_measured(precision[:, :, index]) for index, key in enumerate(keys)}
