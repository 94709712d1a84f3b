"""Settings that would lose fewer instances: a search over a few candidates, each evaluated like the recipe itself.

Cheap changes come first: size ranges cost nothing, finer grids a little, larger pictures time and memory in
proportion to their area. A dearer change is made only where it gains enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from solov2.assign import Assigner
from solov2.build import build_split_transforms
from solov2.config import Config
from solov2.data.coco import CocoFile
from solov2.inspection.losses import BUDGET, Losses, Views, count_losses, make_views
from solov2.inspection.plans import RESIZING, Plan, Ranges, enlarged, recipe_text, with_plan

GRID_FACTORS = (1.25, 1.5, 2.0, 2.5, 3.0)
MOST_CELLS = 128
"""Per side of a grid: 16,384 cells of one level."""

SIZE_FACTORS = (1.25, 1.5, 2.0)

RANGE_FACTORS = (0.5, 0.7, 1.4, 2.0)
OVERLAP = 2.0
"""How far neighbouring size ranges overlap: the one's upper end over the other's lower end, as in the usual ranges."""

SEARCH_INSTANCES = 2_500
"""Instances that picture sizes are compared on; before and after are counted on more."""

GOOD_ENOUGH = 0.01
"""Share of the instances that may be lost without a search for something better."""

LEAST_GAIN = {"scale_ranges": 0.002, "num_grids": 0.005, "target_size": 0.01}
"""Share of the instances that a change has to save: more where the change is dear."""

PART_OF_LOSS = {"scale_ranges": 0.1, "num_grids": 0.2, "target_size": 0.3}
"""Share of the loss that a change has to save, too."""


@dataclass(frozen=True)
class Suggestion:
    """Settings that lose fewer instances.

    Attributes:
        changed: the recipe's keys that differ.
        config: the recipe with them.
        losses: counted with them.
        recipe: YAML of the blocks that differ, to be put into a recipe of one's own.
    """

    changed: tuple[str, ...]
    config: Config
    losses: Losses
    recipe: str


@dataclass
class Trial:
    """Evaluates plans for one data set and recipe; views are made once per size."""

    file: CocoFile
    config: Config
    views: dict[tuple[float, int], Views] = field(default_factory=dict)

    def losses(self, plan: Plan, budget: int = BUDGET) -> Losses:
        """What a plan would lose, counted on about so many instances."""
        center_scale, strides = self.config.assign.center_scale, self.config.model.grid_head.strides
        assigner = Assigner(plan.grid_sizes, plan.size_ranges, center_scale, strides)
        return count_losses(self.views_at(plan.enlarge, budget), assigner)

    def views_at(self, enlarge: float, budget: int = BUDGET) -> Views:
        """The data set at a factor of the recipe's sizes."""
        if (enlarge, budget) not in self.views:
            config = enlarged(self.config, enlarge)
            self.views[enlarge, budget] = make_views(
                self.file,
                build_split_transforms(config.data.train),
                config.data.pad_stride,
                seed=config.train.seed,
                budget=budget,
            )
        return self.views[enlarge, budget]

    @cached_property
    def now(self) -> Plan:
        """The recipe's own settings."""
        return Plan(self.config.model.grid_head.grid_sizes, self.config.assign.size_ranges)


def suggest(trial: Trial, before: Losses) -> Suggestion | None:
    """Searches for settings that lose fewer instances than the recipe's.

    Args:
        trial: the recipe on the data set.
        before: what the recipe loses.

    Returns:
        None where the recipe loses next to none, or no candidate is worth its price.
    """
    if before.share <= GOOD_ENOUGH:
        return None
    plan = _best(trial, trial.now, "scale_ranges", _range_candidates(trial, trial.now))
    plan = _cheapest(trial, plan, "num_grids", _grid_candidates(plan))
    plan = _cheapest(trial, plan, "target_size", _size_candidates(trial.config, plan), SEARCH_INSTANCES)
    if plan == trial.now:
        return None
    after = trial.losses(plan)
    if after.share >= before.share:  # what a part of the data promised does not hold
        return None

    config = with_plan(trial.config, plan)
    changed = tuple(
        key
        for key, differs in (
            ("num_grids", plan.grid_sizes != trial.now.grid_sizes),
            ("scale_ranges", plan.size_ranges != trial.now.size_ranges),
            ("target_size", plan.enlarge != trial.now.enlarge),
        )
        if differs
    )
    return Suggestion(changed, config, after, recipe_text(config, changed))


def _cheapest(trial: Trial, plan: Plan, kind: str, candidates: Iterable[Plan], budget: int = BUDGET) -> Plan:
    """The last of candidates of rising price, each of which has to be worth the step from the one before."""
    share = trial.losses(plan, budget).share
    for candidate in candidates:
        if share <= GOOD_ENOUGH:
            break
        found = trial.losses(candidate, budget).share
        if _worth_it(share, found, kind):
            plan, share = candidate, found
    return plan


def _best(trial: Trial, plan: Plan, kind: str, candidates: Iterable[Plan]) -> Plan:
    """The candidate that loses least, the first of equals, if it is worth a change."""
    share = trial.losses(plan).share
    tried = [(trial.losses(candidate).share, candidate) for candidate in candidates]
    found, candidate = min(tried, key=lambda pair: pair[0], default=(share, plan))
    return candidate if _worth_it(share, found, kind) else plan


def _worth_it(before: float, after: float, kind: str) -> bool:
    return before - after >= max(LEAST_GAIN[kind], PART_OF_LOSS[kind] * before)


# ------------------------------------------------------------------------------------------ candidates


def _range_candidates(trial: Trial, plan: Plan) -> Iterator[Plan]:
    """Wider ends and no gaps; inner bounds moved by a factor; bounds at quantiles of the objects' sizes."""
    sizes = np.sort(trial.views_at(plan.enlarge).sizes().numpy())
    sizes = sizes[sizes > 0]
    if len(sizes) == 0:
        return
    bounds = [
        math.sqrt(low * high) for (_, high), (low, _) in zip(plan.size_ranges, plan.size_ranges[1:], strict=False)
    ]
    low = min(plan.size_ranges[0][0], math.floor(sizes[0]))
    high = max(plan.size_ranges[-1][1], math.ceil(sizes[-1]))
    yield replace(plan, size_ranges=_without_gaps(plan.size_ranges, low, high))
    # Cells per level; of grids that are the network's maps, per area of the picture.
    counts = np.square(plan.grid_sizes or np.reciprocal(np.array(trial.config.model.grid_head.strides, float)))
    cells = np.cumsum(counts)[:-1] / np.sum(counts)
    levels = len(plan.size_ranges)
    even = np.arange(1, levels) / levels
    for shares in (even, cells, (even + cells) / 2):
        yield replace(plan, size_ranges=_ranges(np.quantile(sizes, shares).tolist(), low, high))
    for factor in RANGE_FACTORS:
        yield replace(plan, size_ranges=_ranges([bound * factor for bound in bounds], low, high))


def _without_gaps(ranges: Ranges, low: float, high: float) -> Ranges:
    lows = [low, *(min(own, before) for (own, _), (_, before) in zip(ranges[1:], ranges, strict=False))]
    highs = [*(end for _, end in ranges[:-1]), high]
    return tuple(zip(lows, highs, strict=True))


def _ranges(bounds: Sequence[float], low: float, high: float) -> Ranges:
    """Ranges that overlap around bounds, rounded to whole pixels."""
    half = math.sqrt(OVERLAP)
    lows = [low, *(max(float(round(bound / half)), low) for bound in bounds)]
    highs = [*(min(float(round(bound * half)), high) for bound in bounds), high]
    return tuple((start, max(start, end)) for start, end in zip(lows, highs, strict=True))


def _grid_candidates(plan: Plan) -> Iterator[Plan]:
    for factor in GRID_FACTORS:
        grids = tuple(max(min(round(size * factor), MOST_CELLS), size) for size in plan.grid_sizes)
        if grids != plan.grid_sizes:
            yield replace(plan, grid_sizes=grids)


def _size_candidates(config: Config, plan: Plan) -> Iterator[Plan]:
    if any(step.name in RESIZING for step in config.data.train.reader.transforms):
        yield from (replace(plan, enlarge=factor) for factor in SIZE_FACTORS)
