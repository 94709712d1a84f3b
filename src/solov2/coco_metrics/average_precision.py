"""COCO mask AP from ground truth and result records.

The evaluation is pycocotools'; hotcoco, where it is installed, computes the very same arrays many times faster.
Letters: T IoU thresholds, R recall steps, C classes, A area ranges, M limits of detections.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from dataclasses import dataclass, field
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
        curves: precision at recall 0.00, 0.01 … 1.00 and IoU .50, (101,) each, by class name, for the classes
            that occur.
    """

    stats: tuple[float, ...]
    names: tuple[str, ...]
    per_class: dict[str, float]
    backend: str
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


def mask_ap(
    gt_json: GroundTruthSource,
    results: Results,
    *,
    max_dets: int = 100,
    backend: Backend = "auto",
    boundary: bool = False,
) -> MaskAP:
    """COCO mask AP.

    Neither argument is changed. With 100 detections the numbers are exactly those of pycocotools, for results
    without ``bbox`` and annotation ids that start at 1; it goes astray with others, this function does not.

    Args:
        gt_json: COCO json, as a file or already read.
        results: COCO result records; the masks as compressed RLE or lists of run lengths.
        max_dets: detections per picture and class that count, best first; 1 or more.
        backend: "auto" is hotcoco where it is installed.
        boundary: compare masks near their outlines only, as Cheng et al., "Boundary IoU", define it; the
            smaller of mask and boundary IoU counts. Computed by faster-coco-eval.

    Raises:
        DatasetError: the json or the records are no such thing, or do not belong together.
        MissingDependencyError: hotcoco, or for boundaries faster-coco-eval, is asked for and not installed.
    """
    if max_dets < 1:
        raise ValueError(f"max_dets is {max_dets}, expected 1 or more")
    truth = read_ground_truth(gt_json)
    detections = read_results(results, truth)
    limits = sorted({1, 10, max_dets})
    engine: str = _choose_backend(backend) if detections else "pycocotools"  # the others take no empty list
    compute = _hotcoco_arrays if engine == "hotcoco" else _pycocotools_arrays
    if boundary:
        _require_boundary()
        if detections:  # without any, nothing is found whatever counts
            engine, compute = "faster-coco-eval", _boundary_arrays
    precision, recall = compute(truth, detections, limits)
    used = [limits.index(1), limits.index(10), limits.index(max_dets)]
    return MaskAP(
        stats=_stats(precision, recall, used),
        names=_stat_names(max_dets),
        per_class=_per_class(precision[:, :, :, _ALL_AREAS, used[-1]], truth),
        backend=engine,
        max_dets=max_dets,
        curves=_curves(precision[_IOU_50, :, :, _ALL_AREAS, used[-1]], truth),
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


def _require_boundary() -> None:
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise MissingDependencyError("faster-coco-eval", "boundary", "boundary AP")


def _boundary_arrays(truth: GroundTruth, detections: list[Record], limits: list[int]) -> Arrays:
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(truth.dataset)
        found = annotated.loadRes([dict(record) for record in detections])
        evaluation = COCOeval_faster(annotated, found, iouType="boundary")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


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


def _class_names(truth: GroundTruth) -> list[str]:
    """In the arrays' order; equal names are told apart by their ids."""
    names = [str(category.get("name", category["id"])) for category in truth.categories]
    ids = [category["id"] for category in truth.categories]
    return [name if names.count(name) == 1 else f"{name} ({id_})" for name, id_ in zip(names, ids, strict=True)]


def _per_class(precision: npt.NDArray[np.float64], truth: GroundTruth) -> dict[str, float]:
    """AP by class name from precision (T, R, C)."""
    return {name: _mean_of_measured(precision[:, :, index]) for index, name in enumerate(_class_names(truth))}


def _curves(precision: npt.NDArray[np.float64], truth: GroundTruth) -> dict[str, npt.NDArray[np.float64]]:
    """Curves by class name from precision (R, C)."""
    measured = np.asarray(np.any(precision > -1, axis=0))
    return {name: precision[:, index] for index, name in enumerate(_class_names(truth)) if measured[index]}
