"""Settings that would lose fewer instances: a search over a few candidates, each evaluated like the recipe itself.

Cheap changes come first: size ranges cost nothing, finer grids a little, larger pictures time and memory in
proportion to their area. A dearer change is made only where it gains enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from solov2.assign import Assigner
from solov2.build import build_split_transforms
from solov2.config import Config
from solov2.config.schema import SplitConfig, TransformConfig
from solov2.data.coco import CocoFile
from solov2.inspection.losses import Losses, Views, count_losses, make_views

Ranges = tuple[tuple[float, float], ...]

GRID_FACTORS = (1.25, 1.5, 2.0, 2.5, 3.0)
MOST_CELLS = 128
"""Per side of a grid: 16,384 cells of one level."""

SIZE_FACTORS = (1.25, 1.5, 2.0)
SIZE_STEP = 32
"""Suggested sides are multiples of it."""

RANGE_FACTORS = (0.5, 0.7, 1.4, 2.0)
OVERLAP = 2.0
"""How far neighbouring size ranges overlap: the one's upper end over the other's lower end, as in the usual ranges."""

SEARCH_INSTANCES = 3_000
"""Instances that candidates are compared on; before and after are counted on all views."""

LEAST_GAIN = 0.002
"""Share of the instances that a change has to save."""

PART_OF_LOSS = {"scale_ranges": 0.1, "num_grids": 0.1, "target_size": 0.25}
"""Share of the loss that a change has to save, too: more where the change is dear."""

RESIZING = ("Resize", "RandomResize", "LargeScaleJitter")


@dataclass(frozen=True)
class Plan:
    """A recipe's settings that decide about losses.

    Attributes:
        grid_sizes: cells per side, per level.
        size_ranges: per level, in pixels of the padded input.
        enlarge: factor of the sizes that pictures are scaled to.
    """

    grid_sizes: tuple[int, ...]
    size_ranges: Ranges
    enlarge: float = 1.0


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
    views: dict[float, Views] = field(default_factory=dict)

    def losses(self, plan: Plan, instances: int | None = None) -> Losses:
        """What a plan would lose, on all views or on the first with some number of instances."""
        views = self.views_at(plan.enlarge)
        if instances is not None:
            views = views.first(instances)
        return count_losses(views, Assigner(plan.grid_sizes, plan.size_ranges, self.config.assign.center_scale))

    def views_at(self, enlarge: float) -> Views:
        """The data set at a factor of the recipe's sizes."""
        if enlarge not in self.views:
            split = enlarged(self.config, enlarge).data.train
            self.views[enlarge] = make_views(
                self.file, build_split_transforms(split), self.config.data.pad_stride, seed=self.config.train.seed
            )
        return self.views[enlarge]

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
        None where no candidate is worth its price.
    """
    plan = _climb(trial, trial.now, "scale_ranges", lambda plan: _range_candidates(trial, plan), best=True)
    plan = _climb(trial, plan, "num_grids", _grid_candidates)
    plan = _climb(trial, plan, "target_size", lambda plan: _size_candidates(trial.config, plan))
    if plan == trial.now:
        return None
    after = trial.losses(plan)
    if before.share - after.share < LEAST_GAIN:
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


def _climb(
    trial: Trial, plan: Plan, kind: str, candidates: Callable[[Plan], Iterator[Plan]], *, best: bool = False
) -> Plan:
    """The last of rising candidates that is worth it, or with ``best`` the one that loses least if it is worth it."""
    share = trial.losses(plan, SEARCH_INSTANCES).share
    tried = []
    for candidate in candidates(plan):
        found = trial.losses(candidate, SEARCH_INSTANCES).share
        if best:
            tried.append((found, len(tried), candidate))
        elif _worth_it(share, found, kind):
            plan, share = candidate, found
        elif found < share:
            continue  # the next may gain enough
    if tried:
        found, _, candidate = min(tried)
        return candidate if _worth_it(share, found, kind) else plan
    return plan


def _worth_it(before: float, after: float, kind: str) -> bool:
    return before - after >= max(LEAST_GAIN, PART_OF_LOSS[kind] * before)


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
    cells = np.cumsum(np.square(plan.grid_sizes))[:-1] / np.sum(np.square(plan.grid_sizes))
    levels = len(plan.grid_sizes)
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


# --------------------------------------------------------------------------------------------- recipes


def with_plan(config: Config, plan: Plan) -> Config:
    """The recipe with a plan's settings."""
    values = enlarged(config, plan.enlarge).model_dump(mode="json")
    values["model"]["grid_head"]["grid_sizes"] = plan.grid_sizes
    values["assign"]["size_ranges"] = plan.size_ranges
    return Config.model_validate(values)


def enlarged(config: Config, factor: float) -> Config:
    """The recipe with larger pictures in all three readers."""
    if factor == 1:
        return config
    values = config.model_dump(mode="json")
    for split in ("train", "eval", "test"):
        for step in values["data"][split]["reader"]["transforms"]:
            if step["name"] not in RESIZING:
                continue
            args = step["args"]
            args["target_size"] = _larger(args["target_size"], factor)
            if args.get("min_scale") is not None:
                args["min_scale"] *= factor
    return Config.model_validate(values)


def _larger(size: Any, factor: float) -> Any:
    if isinstance(size, int):
        return max(round(size * factor / SIZE_STEP) * SIZE_STEP, SIZE_STEP)
    return [_larger(part, factor) for part in size]


def recipe_text(config: Config, changed: Sequence[str]) -> str:
    """YAML of the blocks that hold changed keys; lists of operators are whole, as a recipe's lists replace its base's."""
    blocks: dict[str, Any] = {}
    if "num_grids" in changed:
        blocks["SOLOv2Head"] = {"num_grids": list(config.model.grid_head.grid_sizes)}
    if "target_size" in changed:
        for name, split in (("Train", config.data.train), ("Eval", config.data.eval), ("Test", config.data.test)):
            blocks[f"{name}Reader"] = {"sample_transforms": _operators(config, split)}
    blocks.setdefault("TrainReader", {})["batch_transforms"] = [
        {"PadBatch": {"pad_to_stride": config.data.pad_stride}},
        {
            "Gt2Solov2Target": {
                "num_grids": list(config.model.grid_head.grid_sizes),
                "scale_ranges": [[_plain(end) for end in pair] for pair in config.assign.size_ranges],
                "coord_sigma": config.assign.center_scale,
            }
        },
    ]
    lines = []
    for block, keys in blocks.items():
        lines.append(f"{block}:")
        for key, value in keys.items():
            if isinstance(value[0], dict):
                lines += [f"  {key}:", *(f"    - {name}: {_inline(args)}" for [(name, args)] in map(dict.items, value))]
            else:
                lines.append(f"  {key}: {_inline(value)}")
    return "\n".join(lines)


def _operators(config: Config, split: SplitConfig) -> list[dict[str, Any]]:
    normalize = config.data.normalize
    return [
        {"Decode": {}},
        {"Poly2Mask": {}},
        *({step.name: _arguments(step)} for step in split.reader.transforms),
        {"NormalizeImage": {"mean": list(normalize.mean), "std": list(normalize.std), "is_scale": True}},
        {"Permute": {}},
    ]


def _arguments(step: TransformConfig) -> dict[str, Any]:
    return step.model_copy(update={"args": step.stated()}).model_dump(mode="json")["args"]  # type: ignore[no-any-return]


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).strip().removesuffix("\n...")
