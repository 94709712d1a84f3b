"""What a COCO json holds: counts, sizes and classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solov2.data.coco import CocoFile, is_crowd

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of the objects' sizes."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How often one class occurs; ``id`` is the annotation file's."""

    id: int
    name: str
    instances: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """A data set in numbers; crowd regions are no instances.

    Attributes:
        pictures: how many can be used.
        empty: how many of them have no instance.
        instances: how many can be used.
        crowds: regions of many objects.
        median_per_picture: instances in the median picture, those without counted too.
        most_per_picture: instances in the fullest picture.
        short_sides: least, median and greatest, in pixels.
        long_sides: likewise.
        sizes: :data:`QUANTILES` of the square roots of box areas, in pixels of the original pictures; empty without
            an instance.
        classes: rarest first.
        partial: pictures that were annotated for some classes only.
        known: for each class that any of them was annotated for its name and how many of them, most first.
    """

    pictures: int
    empty: int
    instances: int
    crowds: int
    median_per_picture: float
    most_per_picture: int
    short_sides: tuple[float, ...]
    long_sides: tuple[float, ...]
    sizes: tuple[float, ...]
    classes: tuple[ClassCount, ...]
    partial: int = 0
    known: tuple[tuple[str, int], ...] = ()


def count(file: CocoFile) -> Statistics:
    """Counts what is usable in a COCO json."""
    instances: Counter[int] = Counter()
    pictures: defaultdict[int, set[int]] = defaultdict(set)
    areas, per_picture, crowds = [], [], 0
    for image in file.images:
        number = 0
        for annotation in file.annotations[image["id"]]:
            if is_crowd(annotation):
                crowds += 1
                continue
            number += 1
            instances[annotation["category_id"]] += 1
            pictures[annotation["category_id"]].add(image["id"])
            areas.append(annotation["bbox"][2] * annotation["bbox"][3])
        per_picture.append(number)
    sides = np.sort(np.array([(i["height"], i["width"]) for i in file.images], np.float64).reshape(-1, 2), axis=1)
    classes = [ClassCount(c.id, c.name, instances[c.id], len(pictures[c.id])) for c in file.categories]
    known = Counter(number for ids in file.known.values() for number in ids)
    return Statistics(
        pictures=len(file.images),
        empty=per_picture.count(0),
        instances=len(areas),
        crowds=crowds,
        median_per_picture=float(np.median(per_picture)) if per_picture else 0.0,
        most_per_picture=max(per_picture, default=0),
        short_sides=quantiles(sides[:, 0], (0, 0.5, 1)),
        long_sides=quantiles(sides[:, 1], (0, 0.5, 1)),
        sizes=quantiles(np.sqrt(areas)),
        classes=tuple(sorted(classes, key=lambda c: (c.instances, c.id))),
        partial=len(file.known),
        known=tuple((c.name, known[c.id]) for c in sorted(file.categories, key=lambda c: -known[c.id]) if known[c.id]),
    )


def quantiles(values: npt.ArrayLike, shares: Sequence[float] = QUANTILES) -> tuple[float, ...]:
    """The quantiles of some values, interpolated; none of no values."""
    array = np.asarray(values, np.float64)
    return tuple(np.quantile(array, shares).tolist()) if array.size else ()
