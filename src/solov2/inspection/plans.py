"""The settings that decide which instances are lost, and recipes that have others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from solov2.config import Config
from solov2.config.schema import SplitConfig, TransformConfig

Ranges = tuple[tuple[float, float], ...]

SIZE_STEP = 32
"""Sides of enlarged pictures are multiples of it."""

RESIZING = ("Resize", "RandomResize", "LargeScaleJitter")
"""Transforms with a size."""


@dataclass(frozen=True)
class Plan:
    """A recipe's settings that decide about losses.

    Attributes:
        grid_sizes: cells per side, per level; empty where grids are the network's maps.
        size_ranges: per level, in pixels of the padded input.
        enlarge: factor of the sizes that pictures are scaled to.
    """

    grid_sizes: tuple[int, ...]
    size_ranges: Ranges
    enlarge: float = 1.0


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
    """YAML of the blocks that hold changed keys; lists of operators are whole, as they replace those of a base."""
    blocks: dict[str, Any] = {}
    if "num_grids" in changed:
        blocks["SOLOv2Head"] = {"num_grids": _grids(config)}
    if "target_size" in changed:
        for name, split in (("Train", config.data.train), ("Eval", config.data.eval), ("Test", config.data.test)):
            blocks[f"{name}Reader"] = {"sample_transforms": _operators(config, split)}
    blocks.setdefault("TrainReader", {})["batch_transforms"] = [
        {"PadBatch": {"pad_to_stride": config.data.pad_stride}},
        {
            "Gt2Solov2Target": {
                "num_grids": _grids(config),
                "scale_ranges": [[_plain(end) for end in pair] for pair in config.assign.size_ranges],
                "coord_sigma": config.assign.center_scale,
            }
        },
    ]
    return "\n".join(_lines(blocks))


def _grids(config: Config) -> list[int] | str:
    return list(config.model.grid_head.grid_sizes) or "native"


def _lines(blocks: dict[str, dict[str, Any]]) -> Iterator[str]:
    """YAML: a line for each key, each operator, and each argument where an operator has several."""
    for block, keys in blocks.items():
        yield f"{block}:"
        for key, value in keys.items():
            if not isinstance(value[0], dict):
                yield f"  {key}: {_inline(value)}"
                continue
            yield f"  {key}:"
            for [(name, arguments)] in map(dict.items, value):
                if len(arguments) < 2:
                    yield f"    - {name}: {_inline(arguments)}"
                    continue
                yield f"    - {name}:"
                yield from (f"        {argument}: {_inline(item)}" for argument, item in arguments.items())


def _operators(config: Config, split: SplitConfig) -> list[dict[str, Any]]:
    normalize = config.data.normalize
    return [
        {"Decode": {}},
        {"Poly2Mask": {}},
        *[{str(step.name): _arguments(step)} for step in split.reader.transforms],
        {"NormalizeImage": {"mean": list(normalize.mean), "std": list(normalize.std), "is_scale": True}},
        {"Permute": {}},
    ]


def _arguments(step: TransformConfig) -> dict[str, Any]:
    return step.model_copy(update={"args": step.stated()}).model_dump(mode="json")["args"]  # type: ignore[no-any-return]


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).strip().removesuffix("\n...")
