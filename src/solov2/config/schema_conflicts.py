"""Contradictions between settings that are legal one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solov2.config.schema_types import Conflict

if TYPE_CHECKING:
    from solov2.config.schema import Config

BACKBONE_LEVELS = 4
"""c2..c5; the FPN may add coarser levels."""

SMALLEST_BOTTLENECK_DEPTH = 50
"""A ResNet of less depth is made of basic blocks."""


def find_conflicts(config: Config) -> list[Conflict]:
    """All of them."""
    return [*_in_backbone(config), *_between_levels(config), *_in_heads(config)]


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


def _between_levels(config: Config) -> list[Conflict]:
    head, found = config.model.grid_head, []
    lengths = {
        "model.grid_head.grid_sizes": len(head.grid_sizes),
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
    levels = BACKBONE_LEVELS + config.model.fpn.extra_levels
    if levels < len(head.grid_sizes):
        found.append(
            Conflict(
                ("model.grid_head.grid_sizes", "model.fpn.extra_levels"),
                f"{len(head.grid_sizes)} grids need as many pyramid levels, but there are {levels}: "
                f"{BACKBONE_LEVELS} of the backbone and {config.model.fpn.extra_levels} extra",
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
