"""Contradictions between settings that are legal one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solov2.config.schema_types import Conflict

if TYPE_CHECKING:
    from solov2.config.schema import Config

BACKBONE_LEVELS = 4
"""c2..c5; the FPN may add coarser levels."""

FINEST_STRIDE = 4
"""Of c2 and p2."""

SMALLEST_BOTTLENECK_DEPTH = 50
"""A ResNet of less depth is made of basic blocks."""


def find_conflicts(config: Config) -> list[Conflict]:
    """All of them."""
    return [
        *_in_backbone(config),
        *_in_neck(config),
        *_between_levels(config),
        *_in_heads(config),
        *_of_rivals(config),
    ]


def _in_backbone(config: Config) -> list[Conflict]:
    backbone = config.model.backbone
    if backbone.kind != "resnet" or backbone.depth >= SMALLEST_BOTTLENECK_DEPTH:
        return []
    if (backbone.groups, backbone.base_width) == (1, 64):
        return []
    message = (
        f"groups {backbone.groups} of {backbone.base_width} channels need bottlenecks, which a ResNet of depth "
        f"{backbone.depth} does not have: use {SMALLEST_BOTTLENECK_DEPTH} or more"
    )
    return [Conflict(("model.backbone.depth", "model.backbone.groups", "model.backbone.base_width"), message)]


def _in_neck(config: Config) -> list[Conflict]:
    fpn = config.model.fpn
    if fpn.kind != "ghost_pan" or fpn.channels % 2 == 0:
        return []
    message = f"half of a ghost module's channels are made of the other half: {fpn.channels} is odd, use an even number"
    return [Conflict(("model.fpn.channels",), message)]


def _between_levels(config: Config) -> list[Conflict]:
    head, found = config.model.grid_head, []
    lengths = {
        "model.grid_head.grid_sizes": len(head.grid_sizes or head.strides),
        "model.grid_head.strides": len(head.strides),
        "assign.size_ranges": len(config.assign.size_ranges),
    }
    if len(set(lengths.values())) > 1:
        grids, strides, ranges = lengths.values()
        found.append(
            Conflict(
                tuple(lengths),
                f"each level needs one grid, one stride and one size range, but there are {grids} grids, "
                f"{strides} strides and {ranges} size ranges",
            )
        )
    levels = BACKBONE_LEVELS + (1 if config.model.fpn.kind == "ghost_pan" else config.model.fpn.extra_levels)
    if levels < len(head.grid_sizes):
        found.append(
            Conflict(
                ("model.grid_head.grid_sizes", "model.fpn.extra_levels"),
                f"{len(head.grid_sizes)} grids need as many pyramid levels, but there are {levels}: "
                f"{BACKBONE_LEVELS} of the backbone and {config.model.fpn.extra_levels} extra",
            )
        )
    if not head.grid_sizes and (beyond := [s for s in head.strides if s > FINEST_STRIDE << (levels - 1)]):
        found.append(
            Conflict(
                ("model.grid_head.grid_sizes", "model.grid_head.strides", "model.fpn.extra_levels"),
                f"the grids are to be the pyramid's own maps, but none has stride {max(beyond)}: the coarsest has "
                f"{FINEST_STRIDE << (levels - 1)}",
            )
        )
    if head.separable and head.grid_sizes:
        found.append(
            Conflict(
                ("model.grid_head.separable", "model.grid_head.grid_sizes"),
                "separable towers read the pyramid's own maps: set num_grids to native",
            )
        )
    return found


def _in_heads(config: Config) -> list[Conflict]:
    head, mask_branch, found = config.model.grid_head, config.model.mask_branch, []
    if beyond := [stage for stage in head.dcn_stages if stage >= head.depth]:
        found.append(
            Conflict(
                ("model.grid_head.dcn_stages", "model.grid_head.depth"),
                f"the towers have convolutions 0 to {head.depth - 1}, but {', '.join(map(str, beyond))} is to be "
                "deformable: name those there are",
            )
        )
    if head.kernel_channels != mask_branch.out_channels:
        found.append(
            Conflict(
                ("model.grid_head.kernel_channels", "model.mask_branch.out_channels"),
                f"mask kernels have {head.kernel_channels} channels and mask features "
                f"{mask_branch.out_channels}: a kernel is applied to the features, make them equal",
            )
        )
    return found


def _of_rivals(config: Config) -> list[Conflict]:
    """Pairs of settings of which one would be left out without a word."""
    backbone, head, optim, found = config.model.backbone, config.model.grid_head, config.optim, []
    if head.separable and (head.drop_block or head.dcn_stages):
        found.append(
            Conflict(
                ("model.grid_head.separable", "model.grid_head.drop_block", "model.grid_head.dcn_stages"),
                "separable towers have neither DropBlock nor deformable convolutions: leave these out",
            )
        )
    unused = [name for name in ("channels", "norm") if getattr(head, name) != type(head).model_fields[name].default]
    if head.separable and unused:
        found.append(
            Conflict(
                ("model.grid_head.separable", *(f"model.grid_head.{name}" for name in unused)),
                "separable towers are as wide as the neck and have batch norm: leave these out",
            )
        )
    if backbone.kind == "resnet" and backbone.norm_eval and backbone.freeze_norm:
        found.append(
            Conflict(
                ("model.backbone.norm_eval", "model.backbone.freeze_norm"),
                "norm_eval trains the norms' scale and shift, which freeze_norm: true (the default) keeps: state "
                "freeze_norm: false, or leave norm_eval out",
            )
        )
    if backbone.kind == "resnet" and backbone.norm_eval and backbone.sync_norm:
        found.append(
            Conflict(
                ("model.backbone.norm_eval", "model.backbone.sync_norm"),
                "norm_eval keeps the stored statistics, so that there are none for the devices to share: state "
                "ResNet.norm_type: bn, or leave norm_eval out",
            )
        )
    if optim.clip_norm is not None and optim.clip_value is not None:
        found.append(
            Conflict(
                ("optim.clip_norm", "optim.clip_value"),
                f"gradients are clipped by their norm ({optim.clip_norm:g}) or by value ({optim.clip_value:g}), not "
                "both: set one of them to null",
            )
        )
    return found
