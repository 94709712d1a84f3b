"""PaddleDetection's operator lists, `sample_transforms` and `batch_transforms`.

Pictures are resized as uint8 and normalised on the device, wherever a list puts NormalizeImage; decoding, masks,
channel order and targets belong to the pipeline. What is left of a list, in order, are the transforms.
"""

from __future__ import annotations

import difflib
from typing import Any

from solov2.config.paddle_shared import native_to_empty
from solov2.config.schema_data import (
    CopyPasteArgs,
    LargeScaleJitterArgs,
    NormalizeConfig,
    RandomCropArgs,
    RandomDistortArgs,
    RandomPatchArgs,
)
from solov2.config.translate import Ignored, Only, Rules, Take, Translation, shown
from solov2.config.yaml_tree import Path

_SIZE_RULES: Rules = {
    "target_size": Take("target_size"),
    "keep_ratio": Take("keep_ratio"),
    "min_scale": Take("min_scale"),
    "interp": Take("interp"),
}
_TRANSFORMS: dict[str, Rules] = {
    "Resize": _SIZE_RULES,
    "RandomResize": {
        **_SIZE_RULES,
        "random_range": Take("random_range"),
        "random_size": Only((True, False), "use true, or false for a single size"),
        "random_interp": Take("random_interp"),
    },
    "RandomFlip": {"prob": Take("prob"), "vertical_prob": Take("vertical_prob")},
    "RandomRotate90": {"prob": Take("prob")},
    "LargeScaleJitter": {name: Take(name) for name in LargeScaleJitterArgs.model_fields},
    "RandomPatch": {name: Take(name) for name in RandomPatchArgs.model_fields},
    "CopyPaste": {name: Take(name) for name in CopyPasteArgs.model_fields},
    "RandomDistort": {name: Take(name) for name in RandomDistortArgs.model_fields},
    "RandomCrop": {
        **{name: Take(name) for name in RandomCropArgs.model_fields},
        "is_mask_crop": Only((False, True), "masks are cut with their picture in any case; use false"),
    },
}
_PLAIN: dict[str, Rules] = {"Decode": {}, "Permute": {}, "Poly2Mask": {"del_poly": Ignored()}}
_BATCH: dict[str, Rules] = {
    "PadBatch": {"pad_to_stride": Take("data.pad_stride")},
    "Gt2Solov2Target": {
        "num_grids": Take("model.grid_head.grid_sizes", native_to_empty),
        "scale_ranges": Take("assign.size_ranges"),
        "coord_sigma": Take("assign.center_scale"),
        "sampling_ratio": Only((4, 4.0), "mask targets have a quarter of the input's size; use 4"),
    },
}
# Operators of PaddleDetection's readers that someone might bring along.
_UNSUPPORTED = (
    "AugmentHSV AutoAugment BatchRandomResize BboxXYXY2XYWH CenterRandColor ColorDistort Cutmix GridMask Mixup Mosaic "
    "NormalizeBox Pad PadBox PadGT RandomErasingImage RandomExpand RandomPerspective "
    "RandomScaledCrop RandomSelect RandomShortSideResize RandomSizeCrop RandomTransform Rotate WarpAffine"
)


def expand_sample_transforms(state: Translation, path: Path, value: Any) -> None:
    """Sets a reader's transforms and the normalisation."""
    target = f"data.{str(path[0]).removesuffix('Reader').lower()}.reader.transforms"
    transforms: list[dict[str, Any]] = []
    for here, name, args in _entries(state, path, value):
        if name == "CopyPaste" and path[0] != "TrainReader":
            state.complain(here, "pastes training objects: it belongs in TrainReader alone; take it out of this list")
        elif name in _TRANSFORMS:
            state.places[f"{target}.{len(transforms)}"] = here
            transforms.append({"name": name, "args": _arguments(state, here, name, args)})
        elif name in _BATCH:
            state.complain(here, "belongs to batch_transforms")
        else:
            _expand_common(state, here, name, args)
    state.give(target, transforms, path)


def expand_batch_transforms(state: Translation, path: Path, value: Any) -> None:
    """Sets the padding, and from the target operator the assignment of objects to cells."""
    for here, name, args in _entries(state, path, value):
        if name in _BATCH:
            state.walk(args, _BATCH[name], here)
        elif name in _TRANSFORMS:
            state.complain(here, "belongs to sample_transforms")
        else:
            _expand_common(state, here, name, args)


def require_normalization(state: Translation, reader: str) -> None:
    """Complains about a reader whose lists leave NormalizeImage out."""
    block = state.tree.values.get(reader)
    if not isinstance(block, dict) or not isinstance(block.get("sample_transforms"), list):
        return
    lists = [block["sample_transforms"], block.get("batch_transforms")]
    entries = [entry for entries in lists if isinstance(entries, list) for entry in entries]
    if not any(isinstance(entry, dict) and "NormalizeImage" in entry for entry in entries):
        state.complain(
            (reader, "sample_transforms"),
            "has no NormalizeImage: every reader states the same {mean, std}, for training and prediction must agree",
        )


def _entries(state: Translation, path: Path, value: Any) -> list[tuple[Path, str, dict[str, Any]]]:
    """The operators of a list that are well formed, each with its place, name and arguments."""
    if not isinstance(value, list):
        if value is not None:
            state.complain(path, f"expected a list of operators, got {shown(value)}; lists are replaced as a whole")
        return []
    found = []
    for index, entry in enumerate(value):
        here = (*path, index)
        if not isinstance(entry, dict) or len(entry) != 1:
            state.complain(here, f"expected one operator such as RandomFlip: {{prob: 0.5}}, got {shown(entry)}")
            continue
        [(name, args)] = entry.items()
        if args is not None and not isinstance(args, dict):
            state.complain((*here, name), f"expected a mapping of arguments, got {shown(args)}")
        else:
            found.append(((*here, name), name, args or {}))
    return found


def _arguments(state: Translation, path: Path, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """A transform's arguments; one side stands for a square target."""
    inner = Translation(state.source, state.tree, state.problems)
    inner.walk(args, _TRANSFORMS[name], path)
    found = inner.settings
    size = found.get("target_size")
    if name in ("Resize", "LargeScaleJitter", "RandomPatch"):
        found |= {"target_size": _square(size)} if size is not None else {}
    elif args.get("random_size") is False and not found.get("random_range"):
        found |= {"target_size": [_square(size)]} if size is not None else {}
    elif isinstance(size, list):
        found["target_size"] = [_square(side) for side in size]
    return found


def _square(size: Any) -> Any:
    return [size, size] if isinstance(size, int) else size


def _expand_common(state: Translation, path: Path, name: str, args: dict[str, Any]) -> None:
    """Operators that may stand in either list."""
    if name == "NormalizeImage":
        _expand_normalize(state, path, args)
    elif name in _PLAIN:
        state.walk(args, _PLAIN[name], path)
    elif name in _UNSUPPORTED.split():
        state.complain(path, f"{name} is not part of this version; take it out of the list")
    else:
        known = ["NormalizeImage", *_PLAIN, *_TRANSFORMS, *_BATCH]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        state.complain(path, f"unknown operator; {hint}")


def _expand_normalize(state: Translation, path: Path, args: dict[str, Any]) -> None:
    rules: Rules = {
        "mean": Take("mean"),
        "std": Take("std"),
        "is_scale": Take("is_scale"),
        "norm_type": Only(("mean_std",), "use mean_std"),
    }
    inner = Translation(state.source, state.tree, state.problems)
    inner.walk(args, rules, path)
    usual = NormalizeConfig()
    is_scale = inner.settings.get("is_scale", True)
    if not isinstance(is_scale, bool):
        state.complain((*path, "is_scale"), f"expected true or false, got {shown(is_scale)}")
        return
    for key in ("mean", "std"):
        value = inner.settings.get(key, list(getattr(usual, key)))
        if not is_scale and isinstance(value, list):  # stated for 0..255
            value = [part / 255 if isinstance(part, int | float) else part for part in value]
        state.give(f"data.normalize.{key}", value, inner.places.get(key, path))
