"""Which instances a recipe would train nothing with, and why: its own transforms, masks and assignment decide.

A view is one picture after the recipe's transforms, padded alone; a batch may pad it further, which moves what a
grid cell stands for a little. Letters: N instances of a view, S cells per side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solov2.assign import Assigner
from solov2.data.coco import CocoFile, is_crowd, shape_of
from solov2.data.collate import make_targets
from solov2.data.distort import RandomDistort
from solov2.data.sample import Sample, Transform
from solov2.structures import HW, Targets

BUDGET = 10_000
"""Instances that are looked at: some seconds."""

MOST_DRAWS = 8
"""Views of one picture, for small data sets: each with other random sizes."""


@dataclass(frozen=True, slots=True)
class Views:
    """What a recipe's transforms make of a data set, or of a sample of it.

    Attributes:
        targets: of each view; labels are row numbers, and masks have their size but no pixels.
        empty: per view (N,) bool, the instances whose training mask, a quarter of the size, has no pixel.
        pictures: how many of the data set's pictures were looked at.
    """

    targets: tuple[Targets, ...]
    empty: tuple[Tensor, ...]
    pictures: int

    def sizes(self) -> Tensor:
        """Square roots of the box areas of all instances, in pixels of the padded input."""
        boxes = torch.cat([targets.boxes for targets in self.targets] or [torch.zeros(0, 4, dtype=torch.float64)])
        return _sizes(boxes)


@dataclass(frozen=True, slots=True)
class Level:
    """What one grid is trained with, summed over the views: pairs of instance and level, and positive cells."""

    instances: int
    cells: int


@dataclass(frozen=True, slots=True)
class Losses:
    """Instances that train nothing, each counted under the first reason that holds, summed over the views.

    Attributes:
        instances: all.
        vanished: their mask has no pixel left at a quarter of the size.
        too_small: below every level's size range.
        between: in a gap between the levels' size ranges.
        too_large: above every level's size range.
        collided: every one of their cells belongs to a later instance.
        levels: finest first.
    """

    instances: int
    vanished: int
    too_small: int
    between: int
    too_large: int
    collided: int
    levels: tuple[Level, ...]

    @property
    def lost(self) -> int:
        """All that are lost."""
        return self.vanished + self.too_small + self.between + self.too_large + self.collided

    @property
    def share(self) -> float:
        """Lost ones of all, 0..1."""
        return self.lost / max(self.instances, 1)


def make_views(
    file: CocoFile, transforms: Sequence[Transform], pad_stride: int, *, seed: int = 0, budget: int = BUDGET
) -> Views:
    """Takes pictures through transforms, without reading them.

    Args:
        file: the data set; of a large one as many pictures are drawn as hold ``budget`` instances, and of a
            small one each is taken several times.
        transforms: a recipe's; colours are left alone, and nothing is pasted.
        pad_stride: the padded sides are multiples of this many pixels.
        seed: of the random numbers; with the same one, transforms that differ in their sizes alone draw alike.
        budget: instances to look at. A smaller budget gives the first views of a larger one.
    """
    steps = [transform for transform in transforms if not isinstance(transform, RandomDistort)]
    pictures = [record for record in file.images if any(not is_crowd(a) for a in file.annotations[record["id"]])]
    order = np.random.default_rng(seed).permutation(len(pictures)).tolist()
    chosen, total = [], 0
    for index in order:
        chosen.append(index)
        total += sum(not is_crowd(a) for a in file.annotations[pictures[index]["id"]])
        if total >= budget:
            break
    targets, empty = [], []
    for draw in range(min(MOST_DRAWS, budget // max(total, 1)) or 1):
        for index in chosen:
            sample, rng = _without_pixels(file, pictures[index]), np.random.default_rng([seed, draw, index])
            for step in steps:
                sample = step(sample, rng)
            full = make_targets(sample, _padded(sample.hw, pad_stride))
            targets.append(_light(full))
            empty.append(~full.masks.flatten(1).bool().any(dim=1))
    return Views(tuple(targets), tuple(empty), len(chosen))


def count_losses(views: Views, assigner: Assigner) -> Losses:
    """Assigns every view's instances and counts those that train nothing.

    Args:
        views: the data set as a recipe presents it.
        assigner: the recipe's.
    """
    reasons: Counter[str] = Counter()
    levels = np.zeros((len(assigner.size_ranges), 2), np.int64)
    lows, highs = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*assigner.size_ranges, strict=True))
    for targets, empty in zip(views.targets, views.empty, strict=True):
        sizes = _sizes(targets.boxes)
        winners = torch.zeros(len(targets), dtype=torch.bool)
        for number, level in enumerate(assigner(targets)):
            owners = level.labels[level.labels >= 0]  # labels are row numbers here: a cell's label is its owner
            winners[owners] = True
            levels[number] += len(torch.bincount(level.instances).nonzero()), len(owners)
        taken = ((sizes[:, None] >= lows) & (sizes[:, None] <= highs)).any(dim=1)
        left = torch.ones(len(targets), dtype=torch.bool)
        for reason, holds in (
            ("vanished", empty),
            ("too_small", sizes < lows.min()),
            ("too_large", sizes > highs.max()),
            ("between", ~taken),
            ("collided", ~winners),
        ):
            reasons[reason] += int((left & holds).sum())
            left &= ~holds
    return Losses(
        instances=sum(len(targets) for targets in views.targets),
        vanished=reasons["vanished"],
        too_small=reasons["too_small"],
        between=reasons["between"],
        too_large=reasons["too_large"],
        collided=reasons["collided"],
        levels=tuple(Level(*pair) for pair in levels.tolist()),
    )


def _without_pixels(file: CocoFile, record: dict[str, Any]) -> Sample:
    hw = (record["height"], record["width"])
    annotations = [a for a in file.annotations[record["id"]] if not is_crowd(a)]
    corners = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Sample(
        image=np.zeros((*hw, 3), np.uint8),
        original_hw=hw,
        image_id=int(record["id"]),
        name=str(record["file_name"]),
        labels=np.arange(len(annotations)),
        boxes=corners,
        shapes=tuple(shape_of(a["segmentation"], hw) for a in annotations),
    )


def _padded(hw: HW, stride: int) -> HW:
    return -(-hw[0] // stride) * stride, -(-hw[1] // stride) * stride


def _light(targets: Targets) -> Targets:
    """Without the masks' memory; assignment only asks for their size."""
    count = len(targets)
    masks = torch.zeros((), dtype=torch.uint8).expand(count, *targets.masks.shape[1:])
    return Targets(torch.arange(count), targets.boxes, targets.centers, masks)


def _sizes(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
