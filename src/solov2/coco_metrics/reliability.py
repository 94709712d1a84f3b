"""How far scores can be believed: the share of right detections among those of about the same score.

Expected calibration error is that of Guo et al., "On Calibration of Modern Neural Networks" (2017), section 2: the mean
distance between score and share, over bins weighted by their detections.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from solov2.atomic import write_atomically
from solov2.coco_metrics.average_precision import class_names
from solov2.coco_metrics.curves import FILL, FONT, INK, LINE, axes, place
from solov2.coco_metrics.tally import Bools, Floats, Tally
from solov2.errors import DatasetError

BINS = 10
"""Of equal width."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Detections that are right or wrong at the first of a tally's IoU thresholds; those of crowds are neither.

    Attributes:
        scores: (D,) float64.
        right: (D,) bool.
        categories: (D,), counted from 1.
    """

    scores: Floats
    right: Bools
    categories: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Detections of about the same score.

    Attributes:
        low: smallest score, inclusive.
        high: largest score, exclusive but in the last bin.
        count: detections.
        mean_score: of the detections, None without any.
        precision: share of them that is right, None without any.
    """

    low: float
    high: float
    count: int
    mean_score: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Scores and what became of them.

    Attributes:
        bins: by rising score.
        count: detections.
        expected_calibration_error: 0..1, best 0; None without detections.
    """

    bins: tuple[Bin, ...]
    count: int
    expected_calibration_error: float | None

    def values(self) -> dict[str, Any]:
        """As plain values, for a json file."""
        return {
            "count": self.count,
            "expected_calibration_error": self.expected_calibration_error,
            "bins": [{name: getattr(each, name) for name in Bin.__slots__} for each in self.bins],
        }


def judged(tally: Tally) -> Judged:
    """The detections of a tally without those that count neither as right nor as wrong.

    Raises:
        DatasetError: if a score is not in 0..1.
    """
    table = tally.table
    table = table[table["ignored"][:, 0] & 1 == 0]
    scores = table["score"]
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise DatasetError(
            f"there are scores of {scores.min():g} to {scores.max():g}; expected 0..1, to compare them with the share "
            "of detections that is right"
        )
    return Judged(scores, table["matched"][:, 0] & 1 == 1, table["category"].astype(np.int64))


def reliability_of(scores: Floats, right: Bools, bins: int = BINS) -> Reliability:
    """Sorts detections into bins of equal width.

    Args:
        scores: (D,), 0..1.
        right: (D,).
        bins: how many.
    """
    edges = np.arange(bins + 1) / bins
    index = np.searchsorted(edges[1:-1], scores, side="right")
    counts = np.bincount(index, minlength=bins)
    found, true = (np.bincount(index, values, bins) / np.maximum(counts, 1) for values in (scores, right))
    made = tuple(
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int(counts[i]),
            mean_score=float(found[i]) if counts[i] else None,
            precision=float(true[i]) if counts[i] else None,
        )
        for i in range(bins)
    )
    total = len(scores)
    error = float(np.sum(counts * np.abs(true - found)) / total) if total else None
    return Reliability(made, total, error)


def reliability_by_class(tally: Tally, bins: int = BINS) -> tuple[Reliability, dict[str, Reliability]]:
    """Reliability of all detections together, and by class name of those that occur.

    Args:
        tally: of all pictures; its first IoU threshold says what is right.
        bins: how many.

    Raises:
        DatasetError: if a score is not in 0..1.
    """
    found = judged(tally)
    by_class = {}
    for position, name in enumerate(class_names(tally.truth), start=1):
        its = found.categories == position
        if its.any():
            by_class[name] = reliability_of(found.scores[its], found.right[its], bins)
    return reliability_of(found.scores, found.right, bins), by_class


def save_reliability(tally: Tally, path: Path, *, kind: str = "mask") -> list[Path]:
    """Writes the numbers as json, and a plot of all classes together beside it.

    Args:
        tally: of all pictures, IoU 0.5 being its first threshold.
        path: ending in ``.json``; the plot's name ends in ``.png`` instead.
        kind: what the IoU is of, "mask" or "boundary".

    Returns:
        Both files.

    Raises:
        DatasetError: if a score is not in 0..1.
    """
    pooled, by_class = reliability_by_class(tally)
    values = {
        "overlap": kind,
        "iou": 0.5,
        "all": pooled.values(),
        "classes": {name: each.values() for name, each in by_class.items()},
    }
    text = json.dumps(values, ensure_ascii=False, indent=1)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    plot = path.with_suffix(".png")
    encoded = cv2.imencode(".png", draw_reliability(pooled, kind))[1].tobytes()
    write_atomically(plot, lambda temporary: temporary.write_bytes(encoded))
    return [path, plot]


def draw_reliability(reliability: Reliability, kind: str = "mask") -> npt.NDArray[np.uint8]:
    """Precision over score, (400, 480, 3) BGR: scores that mean what they say end at the diagonal.

    Args:
        reliability: what to draw; empty bins stay empty, the others say how many detections they have.
        kind: what the IoU is of.
    """
    picture = axes()
    filled = [each for each in reliability.bins if each.count]
    points = []
    for each in filled:
        precision, score = each.precision or 0.0, each.mean_score or 0.0
        left, top = place(each.low, precision)
        right, bottom = place(each.high, 0)
        cv2.rectangle(picture, (left + 2, top), (right - 2, bottom), FILL, cv2.FILLED)
        cv2.putText(picture, _short(each.count), (left + 4, bottom - 5), FONT, 0.33, INK, 1, cv2.LINE_AA)
        points.append(place(score, precision))
    cv2.line(picture, place(0, 0), place(1, 1), INK, 1, cv2.LINE_AA)
    if points:
        cv2.polylines(picture, [np.array(points, np.int32)], False, LINE, 2, cv2.LINE_AA)
    for point in points:
        cv2.circle(picture, point, 3, LINE, cv2.FILLED, cv2.LINE_AA)
    error = reliability.expected_calibration_error
    told = "no detections" if error is None else f"expected calibration error {error:.3f}"
    title = f"precision over score at {kind} IoU 0.50, {told}"
    cv2.putText(picture, title, (12, 24), FONT, 0.42, INK, 1, cv2.LINE_AA)
    return picture


def _short(count: int) -> str:
    """At most five characters."""
    return str(count) if count < 100_000 else f"{count // 1000}k"
