"""Our tensors' names in other frameworks: one function per framework, from our name to theirs.

Sources: PaddleDetection (ppdet/modeling), PaddleClas (legendary_models/resnet.py), mmdetection
(mmdet/models), and detectron2 (modeling, checkpoint) for the layers that AdelaiDet has from it; the
names of the authors' and of AdelaiDet's heads are those in their published files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Framework = Literal["solov2", "paddledetection", "paddleclas", "solo", "mmdetection", "detectron2", "torchvision"]
"""Whose names: "solo" the authors', "detectron2" also AdelaiDet's; "paddleclas" and "torchvision" bare ResNets'."""

OWNERS: Mapping[Framework, str] = {
    "solov2": "this package's",
    "paddledetection": "PaddleDetection's",
    "paddleclas": "PaddleClas's",
    "solo": "the authors'",
    "mmdetection": "mmdetection's",
    "detectron2": "AdelaiDet's",
    "torchvision": "torchvision's",
}
"""Whose names, in words."""

COUNTER = "num_batches_tracked"
"""What PyTorch counts in a batch norm; it says nothing about a trained model."""

LONG_STAGE = 10
"""Stage res4 of PaddleDetection counts its blocks from b1 if it has more than these."""

_LEAF = re.compile(r"(.+?)\.((?:conv|norm)\.(?:offset\.)?\w+|weight|bias)$")


@dataclass(frozen=True)
class Layout:
    """What names elsewhere depend on besides our name.

    Attributes:
        blocks: residual blocks per stage.
        deep_stem: the stem has three convolutions (variants c and d).
        grouped: the backbone is a ResNeXt.
        deformable: our names of the layers whose convolution is deformable.
    """

    blocks: tuple[int, ...] = ()
    deep_stem: bool = False
    grouped: bool = False
    deformable: frozenset[str] = frozenset()

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> Layout:
        """The layout of a network, read off its tensors' names and shapes."""
        found = re.findall(r"^backbone\.stages\.(\d+)\.(\d+)\.", "\n".join(shapes), re.MULTILINE)
        numbers = [(int(stage), int(block)) for stage, block in found]
        stages = 1 + max((stage for stage, _ in numbers), default=-1)
        return cls(
            blocks=tuple(1 + max((b for s, b in numbers if s == stage), default=-1) for stage in range(stages)),
            deep_stem="backbone.stem.2.conv.weight" in shapes,
            grouped=_is_grouped("backbone.stages.0.0.conv2.conv.weight", shapes),
            deformable=frozenset(
                name.removesuffix(".conv.offset.weight") for name in shapes if name.endswith(".conv.offset.weight")
            ),
        )


def _is_grouped(name: str, shapes: Mapping[str, Sequence[int]]) -> bool:
    before = name.replace(".conv2.", ".conv1.")
    return name in shapes and before in shapes and shapes[name][1] < shapes[before][0]


def foreign_names(name: str, framework: Framework, layout: Layout) -> tuple[str, ...]:
    """Names that a tensor of ours may have in a framework.

    Args:
        name: ours.
        framework: whose names.
        layout: of the network.

    Returns:
        The usual one first. Where a file has several of them they are one tensor. Empty if the
        framework has no such tensor.
    """
    if framework == "solov2":
        return (name,)
    split = _LEAF.match(name)
    if split is None:
        return ()
    layer, leaf = split.groups()
    return tuple(TABLES[framework](layer, leaf, layout))


def _paddledetection(layer: str, leaf: str, layout: Layout) -> list[str]:
    tensor = _PADDLE_NORM.get(leaf, leaf).replace("conv.offset.", "conv_offset.")
    match layer.split("."):
        case ["backbone", "stem", number] if layout.deep_stem:
            return [f"backbone.conv1.conv1_{int(number) + 1}.{tensor}"]
        case ["backbone", "stem", "0"]:
            stems = ("res_conv1", "conv1") if layout.grouped else ("conv1", "res_conv1")
            return [f"backbone.conv1.{stem}.{tensor}" for stem in stems]
        case ["backbone", "stages", stage, block, "shortcut", "1"]:
            place = _paddle_block(int(stage), int(block), layout)
            # Variant d puts an average before the convolution where the size halves.
            shorts = ("short.conv", "short") if layout.deep_stem and stage != "0" else ("short", "short.conv")
            return [f"{place}.{short}.{tensor}" for short in shorts]
        case ["backbone", "stages", stage, block, "conv1" | "conv2" | "conv3" as conv]:
            return [f"{_paddle_block(int(stage), int(block), layout)}.branch2{_LETTERS[conv]}.{tensor}"]
        case ["fpn", "laterals", "3"]:
            return [f"neck.fpn_inner_res5_sum.{tensor}"]
        case ["fpn", "laterals", level]:
            return [f"neck.fpn_inner_res{int(level) + 2}_sum_lateral.{tensor}"]
        case ["fpn", "outputs", level]:
            return [f"neck.fpn_res{int(level) + 2}_sum.{tensor}"]
    return _paddledetection_head(layer, leaf, layout)


def _paddledetection_head(layer: str, leaf: str, layout: Layout) -> list[str]:
    tensor = leaf.replace("conv.offset.", "conv.conv_offset.")
    if leaf in ("conv.weight", "conv.bias") and layer in layout.deformable:
        tensor = leaf.replace("conv.", "conv.conv_dcn.")
    match layer.split("."):
        case ["mask_branch", "levels", level, number]:
            return [f"mask_head.conv_pre_feat{level}.mask_feat_head.convs_all_levels.{level}.conv{number}.{tensor}"]
        case ["mask_branch", "output"]:
            # Paddle lists layers that two others hold twice.
            return [f"mask_head.mask_feat_head.conv_pred.0.{tensor}", f"mask_head.conv_pred.{tensor}"]
        case ["grid_head", "kernel_output" | "category_output" as part]:
            output = f"solo_{_SHORT[part.removesuffix('_output')]}.{tensor}"
            return [f"solov2_head.bbox_head.{output}", f"solov2_head.{output}"]
        case ["grid_head", "kernel_tower" | "category_tower" as part, number]:
            return [f"solov2_head.bbox_head.{_SHORT[part.removesuffix('_tower')]}_convs.{number}.{tensor}"]
    return []


def _paddle_block(stage: int, block: int, layout: Layout) -> str:
    long = stage == _RES4 and layout.blocks[stage] > LONG_STAGE and block > 0
    suffix = f"b{block}" if long else chr(ord("a") + block)
    return f"backbone.res{stage + 2}.res{stage + 2}{suffix}"


def _paddleclas(layer: str, leaf: str, layout: Layout) -> list[str]:
    tensor = _PADDLE_NORM.get(leaf, leaf).replace("norm.", "bn.")
    if leaf.startswith("conv.offset."):
        return []
    match layer.split("."):
        case ["backbone", "stem", number]:
            return [f"backbone.stem.{number}.{tensor}"]
        case ["backbone", "stages", stage, block, "shortcut" | "conv1" | "conv2" | "conv3" as conv, *_]:
            index = sum(layout.blocks[: int(stage)]) + int(block)  # its blocks are counted through
            return [f"backbone.blocks.{index}.{_PADDLECLAS[conv]}.{tensor}"]
    return []


def _torchvision(layer: str, leaf: str, layout: Layout) -> list[str]:
    kind, _, tensor = leaf.partition(".")
    match layer.split("."):
        case ["backbone", "stem", "0"] if not layout.deep_stem:
            return [f"backbone.{'conv1' if kind == 'conv' else 'bn1'}.{tensor}"]
        case ["backbone", "stages", stage, block, "shortcut", "1"]:
            place = f"backbone.layer{int(stage) + 1}.{block}"
            return [f"{place}.downsample.{'0' if kind == 'conv' else '1'}.{tensor}"]
        case ["backbone", "stages", stage, block, "conv1" | "conv2" | "conv3" as conv]:
            place = f"backbone.layer{int(stage) + 1}.{block}"
            if kind == "norm":
                return [f"{place}.bn{conv[-1]}.{tensor}"]
            return _with_offsets(f"{place}.{conv}", tensor)
    return []


def _with_offsets(conv: str, tensor: str) -> list[str]:
    # A file written by an old mmdetection calls conv.conv_offset conv_offset.
    if not tensor.startswith("offset."):
        return [f"{conv}.{tensor}"]
    return [f"{conv}.conv_{tensor}", f"{conv}_{tensor}"]


def _openmmlab(layer: str, leaf: str, layout: Layout) -> list[str]:
    match layer.split("."):
        case ["fpn", "laterals", level]:
            return [f"neck.lateral_convs.{level}.conv.{leaf}"]
        case ["fpn", "outputs", level]:
            return [f"neck.fpn_convs.{level}.conv.{leaf}"]
    return _torchvision(layer, leaf, layout)


def _openmmlab_conv(place: str, leaf: str) -> list[str]:
    kind, _, tensor = leaf.partition(".")
    if kind == "norm":
        return [f"{place}.gn.{tensor}"]
    return [] if leaf == "conv.bias" else _with_offsets(f"{place}.conv", tensor)


def _solo(layer: str, leaf: str, layout: Layout) -> list[str]:
    match layer.split("."):
        case ["mask_branch", "levels", level, number]:
            return _openmmlab_conv(f"mask_feat_head.convs_all_levels.{level}.conv{number}", leaf)
        case ["mask_branch", "output"]:
            return _openmmlab_conv("mask_feat_head.conv_pred.0", leaf)
        case ["grid_head", "kernel_output" | "category_output" as part]:
            return [f"bbox_head.solo_{_SHORT[part.removesuffix('_output')]}.{leaf}"]
        case ["grid_head", "kernel_tower" | "category_tower" as part, number]:
            return _openmmlab_conv(f"bbox_head.{_SHORT[part.removesuffix('_tower')]}_convs.{number}", leaf)
    return _openmmlab(layer, leaf, layout)


def _mmdetection(layer: str, leaf: str, layout: Layout) -> list[str]:
    match layer.split("."):
        case ["mask_branch", "levels", level, number]:
            return _openmmlab_conv(f"mask_head.mask_feature_head.convs_all_levels.{level}.conv{number}", leaf)
        case ["mask_branch", "output"]:
            return _openmmlab_conv("mask_head.mask_feature_head.conv_pred", leaf)
        case ["grid_head", "kernel_output"]:
            return [f"mask_head.conv_kernel.{leaf}"]
        case ["grid_head", "category_output"]:
            return [f"mask_head.conv_cls.{leaf}"]
        case ["grid_head", "kernel_tower", number]:
            return _openmmlab_conv(f"mask_head.kernel_convs.{number}", leaf)
        case ["grid_head", "category_tower", number]:
            return _openmmlab_conv(f"mask_head.cls_convs.{number}", leaf)
    return _openmmlab(layer, leaf, layout)


def _detectron2(layer: str, leaf: str, layout: Layout) -> list[str]:
    kind, _, tensor = leaf.partition(".")
    norm = leaf if kind == "norm" else tensor  # a convolution's own tensors stand beside its "norm"
    match layer.split("."):
        case ["backbone", "stem", "0"] if not layout.deep_stem:
            return [f"backbone.bottom_up.stem.conv1.{norm}"]
        case ["backbone", "stages", stage, block, "shortcut", "1"]:
            return [f"backbone.bottom_up.res{int(stage) + 2}.{block}.shortcut.{norm}"]
        case ["backbone", "stages", stage, block, "conv1" | "conv2" | "conv3" as conv]:
            place = f"backbone.bottom_up.res{int(stage) + 2}.{block}.{conv}"
            return [f"{place}_{tensor}" if tensor.startswith("offset.") else f"{place}.{norm}"]
        case ["fpn", "laterals" | "outputs" as part, level]:
            return [f"backbone.fpn_{part[:-1]}{int(level) + 2}.{leaf}"]
    return [] if layer in layout.deformable else _adelaidet_head(layer, leaf)


def _adelaidet_head(layer: str, leaf: str) -> list[str]:
    kind, _, tensor = leaf.partition(".")
    index = 1 if kind == "norm" else 0  # in a sequence of convolution, norm, ReLU
    match layer.split("."):
        case ["mask_branch", "levels", level, number]:
            return [f"mask_head.convs_all_levels.{level}.conv{number}.{index}.{tensor}"]
        case ["mask_branch", "output"]:
            return [f"mask_head.conv_pred.{index}.{tensor}"]
        case ["grid_head", "kernel_output" | "category_output" as part]:
            return [f"ins_head.{_SHORT[part.removesuffix('_output')]}_pred.{leaf}"]
        case ["grid_head", "kernel_tower" | "category_tower" as part, number]:
            return [f"ins_head.{_SHORT[part.removesuffix('_tower')]}_tower.{3 * int(number) + index}.{tensor}"]
    return []


_RES4 = 2
_PADDLECLAS = {"conv1": "conv0", "conv2": "conv1", "conv3": "conv2", "shortcut": "short"}
_LETTERS = {"conv1": "a", "conv2": "b", "conv3": "c"}
_SHORT = {"kernel": "kernel", "category": "cate"}
_PADDLE_NORM = {"norm.running_mean": "norm._mean", "norm.running_var": "norm._variance"}
TABLES = {
    "paddledetection": _paddledetection,
    "paddleclas": _paddleclas,
    "solo": _solo,
    "mmdetection": _mmdetection,
    "detectron2": _detectron2,
    "torchvision": _openmmlab,  # and with a neck, as other detectors of mmdetection have it
}
