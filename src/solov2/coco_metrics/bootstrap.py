"""How sure AP is: its spread over data sets made by drawing the same pictures with replacement.

The percentile interval is that of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Matches
belong to one picture each, so a picture that is drawn k times counts its detections and objects k times, and nothing
is matched again. Only the order among detections of one picture, class and score is not that of a repeated picture.
Letters: P pictures, C classes, D detections of one class, T IoU thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from solov2.coco_metrics.average_precision import RECALLS, class_names, precision_at
from solov2.coco_metrics.tally import IOU_THRESHOLDS, Bools, Floats, Tally

Ints = npt.NDArray[np.int64]

COVERAGE = 95
"""Percent of the resamples that an interval covers."""

LEAST_OBJECTS = 10
"""Of a class that is told of by itself."""

_IOU_50 = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and where it lies in most resamples, 0..1.

    Attributes:
        value: on the pictures themselves.
        low: 2.5th percentile over the resamples.
        high: 97.5th percentile.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Intervals of mask AP.

    Attributes:
        resamples: how many data sets were drawn.
        seed: of the drawing.
        overall: intervals of "AP" and "AP50"; empty where there are no objects to find.
        per_class: of AP, by the name of each class with at least ten objects.
    """

    resamples: int
    seed: int
    overall: dict[str, Interval]
    per_class: dict[str, Interval]

    def table(self, *, per_class: bool = False) -> list[str]:
        """Text lines of names, numbers and intervals; classes follow on request, best first."""
        rows = list(self.overall.items())
        if per_class:
            rows += sorted(self.per_class.items(), key=lambda item: -item[1].value)
        width = max((len(name) for name, _ in rows), default=0)
        return [f"{name:<{width}}  {each.value:.3f}  {each.low:.3f} .. {each.high:.3f}" for name, each in rows]

    def values(self) -> dict[str, Any]:
        """As plain values, for a json file."""
        return {
            "resamples": self.resamples,
            "seed": self.seed,
            "coverage": COVERAGE / 100,
            "overall": {name: _plain(each) for name, each in self.overall.items()},
            "classes": {name: _plain(each) for name, each in self.per_class.items()},
        }


@dataclass(frozen=True, slots=True)
class _Class:
    """The detections of one class over all pictures, best first, and its objects.

    Attributes:
        pictures: (D,) positions.
        right: (T, D).
        wrong: (T, D).
        objects: positions of the pictures of its objects, one each.
    """

    pictures: Ints
    right: Bools
    wrong: Bools
    objects: Ints


def bootstrap_ap(tally: Tally, max_dets: int, resamples: int, seed: int = 0) -> Bootstrap:
    """Draws pictures with replacement, as many as there are, and measures AP each time.

    Args:
        tally: of all pictures, at COCO's IoU thresholds.
        max_dets: detections per picture and class that count.
        resamples: how often, 1 or more.
        seed: of the drawing.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected 1 or more")
    classes, count = _classes(tally, max_dets), len(tally.truth.image_ids)
    names = [name for name, each in zip(class_names(tally.truth), classes, strict=True) if len(each.objects)]
    classes = [each for each in classes if len(each.objects)]
    if not classes:
        return Bootstrap(resamples, seed, {}, {})
    rng = np.random.default_rng(seed)
    values = _measure(classes, np.ones(count, np.int64))
    drawn = [rng.integers(0, count, count) for _ in range(resamples)]
    spread = np.stack([_measure(classes, np.bincount(each, minlength=count)) for each in drawn])  # (resamples, C, 2)
    overall = {
        name: _interval(float(np.mean(values[:, index])), _means(spread[:, :, index]))
        for index, name in enumerate(("AP", "AP50"))
    }
    per_class = {
        name: _interval(float(values[position, 0]), spread[:, position, 0])
        for position, name in enumerate(names)
        if len(classes[position].objects) >= LEAST_OBJECTS
    }
    return Bootstrap(resamples, seed, overall, per_class)


def _classes(tally: Tally, max_dets: int) -> list[_Class]:
    table = tally.table
    lengths = [len(tally.by_picture[picture]) for picture in sorted(tally.by_picture)]
    pictures = np.repeat(np.array(sorted(tally.by_picture), np.int64), lengths)
    order = np.lexsort((-table["score"], table["category"]))  # as for AP: equal scores stay in order
    order = order[table["rank"][order] < max_dets]
    table, pictures = table[order], pictures[order]
    wanted = [(r["category_id"], r["image_id"]) for r in tally.truth.annotations if not r["iscrowd"]]
    objects = np.array(wanted, np.int64).reshape(-1, 2)
    levels = np.arange(len(IOU_THRESHOLDS))[:, None]
    classes = []
    for category in range(1, len(tally.truth.categories) + 1):
        rows = slice(*np.searchsorted(table["category"], [category, category + 1]))
        judged = table["ignored"][rows, 0] >> levels & 1 == 0
        matched = table["matched"][rows, 0] >> levels & 1 == 1
        its_objects = objects[objects[:, 0] == category, 1]
        classes.append(_Class(pictures[rows], matched & judged, ~matched & judged, its_objects))
    return classes


def _measure(classes: list[_Class], times: Ints) -> Floats:
    """AP and AP50 (C, 2) where each picture counts so many times (P,); NaN where a class has no objects then."""
    values = np.full((len(classes), 2), np.nan)
    for index, each in enumerate(classes):
        wanted = int(times[each.objects].sum())
        if wanted:
            weights = times[each.pictures]
            true, false = np.cumsum(each.right * weights, axis=1), np.cumsum(each.wrong * weights, axis=1)
            precision = np.empty((len(true), len(RECALLS)))
            for level in range(len(true)):
                precision[level] = precision_at(true[level], false[level], true[level] / wanted)
            values[index] = precision.mean(), precision[_IOU_50].mean()
    return values


def _means(spread: Floats) -> Floats:
    """Means (resamples,) over the classes (resamples, C) that have objects; NaN where none has."""
    known = ~np.isnan(spread)
    counts = known.sum(axis=1)
    return np.where(counts > 0, np.where(known, spread, 0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _interval(value: float, spread: Floats) -> Interval:
    known = spread[~np.isnan(spread)]
    if not known.size:  # too few resamples to draw one of its pictures
        return Interval(value, value, value)
    tail = (100 - COVERAGE) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
