"""The composition root: the only place where a Config becomes parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn

from solov2.assign import Assigner
from solov2.config import Config
from solov2.config.schema import PiecewiseSchedule, ResNetConfig, SplitConfig
from solov2.data.coco import CocoDataset, CocoFile, load_coco
from solov2.data.merge import merge
from solov2.data.transforms import Transform, build_transforms
from solov2.decoding import Decay
from solov2.errors import ConfigError
from solov2.losses import SOLOv2Loss
from solov2.model.ellipse import PARAMETERS
from solov2.model.fpn import FPN
from solov2.model.ghost_pan import GhostPAN
from solov2.model.grid_head import GridHead
from solov2.model.layers import (
    EvalBatchNorm2d,
    FrozenBatchNorm2d,
    NormFactory,
    SharedBatchNorm2d,
    freeze,
    group_norm,
)
from solov2.model.mask_branch import MaskBranch
from solov2.model.resnet import ResNet
from solov2.model.separable_head import SeparableHead
from solov2.model.shufflenet import ShuffleNetV2
from solov2.model.solov2 import SOLOv2
from solov2.optim import WarmUp, cosine_factor, parameter_groups, piecewise_factor, with_warm_up
from solov2.structures import Category


class DecodeOptions(TypedDict):
    """Keyword arguments of :func:`solov2.decode`."""

    score_threshold: float
    mask_threshold: float
    pre_nms_top_n: int
    post_nms_top_n: int
    update_threshold: float
    decay: Decay
    sigma: float


def build_model(config: Config) -> SOLOv2:
    """The network with fresh weights, in training mode.

    Args:
        config: as :func:`solov2.load_config` gives it.

    Example:
        >>> import solov2
        >>> model = solov2.build_model(solov2.load_config("nano"))
    """
    backbone = _build_backbone(config)
    fpn, mask_branch = config.model.fpn, config.model.mask_branch
    relative = config.model.position == "relative"
    network = SOLOv2(
        backbone=backbone,
        fpn=GhostPAN(backbone.channels, fpn.channels)
        if fpn.kind == "ghost_pan"
        else FPN(backbone.channels, fpn.channels, fpn.extra_levels),
        mask_branch=MaskBranch(
            fpn.channels,
            mask_branch.mid_channels,
            mask_branch.out_channels,
            refinements=mask_branch.refinements,
            dcn=mask_branch.dcn,
            coords=not relative,
            norm=HEAD_NORMS[mask_branch.norm],
        ),
        grid_head=_build_head(config),
        relative=relative,
    )
    try:
        freeze(network, config.train.freeze)
    except AttributeError as error:
        raise ConfigError(f"freeze: the network has no such part ({error}); its parts are {_parts(network)}") from None
    return network


def _parts(network: nn.Module) -> str:
    return ", ".join(name for name, _ in network.named_modules() if 1 <= len(name.split(".")) <= 2 and name)


def _build_head(config: Config) -> GridHead | SeparableHead:
    head, relative = config.model.grid_head, config.model.position == "relative"
    kernel_channels = head.kernel_channels + (PARAMETERS if relative else 0)
    if head.separable:
        return SeparableHead(
            config.model.num_classes,
            strides=head.strides,
            channels=config.model.fpn.channels,
            depth=head.depth,
            kernel_channels=kernel_channels,
        )
    return GridHead(
        config.model.num_classes,
        grid_sizes=head.grid_sizes,
        strides=head.strides,
        in_channels=config.model.fpn.channels,
        channels=head.channels,
        depth=head.depth,
        kernel_channels=kernel_channels,
        drop_block=head.drop_block,
        dcn_stages=head.dcn_stages,
        dcn_version=head.dcn_version,
        coords=not relative,
        norm=HEAD_NORMS[head.norm],
    )


HEAD_NORMS: dict[str, NormFactory] = {"gn": group_norm, "bn": nn.BatchNorm2d, "sync_bn": SharedBatchNorm2d}


def _build_backbone(config: Config) -> ResNet | ShuffleNetV2:
    backbone = config.model.backbone
    if isinstance(backbone, ResNetConfig):
        return ResNet(
            backbone.depth,
            variant=backbone.variant,
            freeze_at=backbone.freeze_at,
            norm=_backbone_norm(backbone),
            project_first=backbone.project_first,
            groups=backbone.groups,
            base_width=backbone.base_width,
            dcn_stages=backbone.dcn_stages,
            dcn_version=backbone.dcn_version,
        )
    return ShuffleNetV2(freeze_at=backbone.freeze_at, freeze_norm=backbone.freeze_norm)


def _backbone_norm(backbone: ResNetConfig) -> NormFactory:
    if backbone.freeze_norm:
        return FrozenBatchNorm2d
    if backbone.norm_eval:
        return EvalBatchNorm2d
    return SharedBatchNorm2d if backbone.sync_norm else nn.BatchNorm2d


def build_loss(config: Config) -> SOLOv2Loss:
    """Assignment and losses."""
    loss = config.loss
    return SOLOv2Loss(
        build_assigner(config),
        mask_weight=loss.mask_weight,
        focal_gamma=loss.focal_gamma,
        focal_alpha=loss.focal_alpha,
        top_cells=loss.top_cells,
    )


def build_assigner(config: Config) -> Assigner:
    """What decides which cells an instance trains."""
    head, assign = config.model.grid_head, config.assign
    return Assigner(head.grid_sizes, assign.size_ranges, assign.center_scale, head.strides)


def decode_options(config: Config) -> DecodeOptions:
    """The recipe's arguments of :func:`solov2.decode`."""
    names = DecodeOptions.__annotations__  # the same by design; what else there is comes after decoding
    options: DecodeOptions = config.decode.model_dump(include=set(names))  # type: ignore[assignment]
    return options


def build_split_transforms(split: SplitConfig) -> tuple[Transform, ...]:
    """The transforms of one reader."""
    return build_transforms([(step.name, step.args) for step in split.reader.transforms])


def build_dataset(
    config: Config, split: SplitConfig, *, categories: Sequence[Category] | None = None, training: bool, strict: bool
) -> CocoDataset:
    """The pictures of one split; only training reads their instances.

    Raises:
        ConfigError: if the recipe names no annotation file.
        DatasetError: if the data cannot be used.
    """
    return CocoDataset(
        load_source(split),
        source_paths(split)[1],
        transforms=build_split_transforms(split),
        categories=categories,
        with_annotations=training,
        allow_empty=split.source.allow_empty,
        strict=strict,
        seed=config.train.seed,
        limit=split.source.sample_num,
        repeat_area=split.reader.repeat_area if training else None,
    )


def load_source(split: SplitConfig, *, pictures: bool = True) -> CocoFile:
    """The annotations of one split, checked; several files are put together.

    Args:
        split: of a recipe.
        pictures: look at the picture files too.

    Raises:
        ConfigError: if the recipe names no annotation file.
        DatasetError: if a file is missing, is no COCO json, or does not go with the others.
    """
    sources = source_files(split)
    files = [load_coco(json_path, image_dir if pictures else None) for json_path, image_dir in sources]
    return merge(files, [image_dir for _, image_dir in sources])


def source_paths(split: SplitConfig) -> tuple[Path, Path]:
    """Annotation file and picture folder of a split: the first of several, which has all categories.

    Raises:
        ConfigError: if the recipe names no annotation file.
    """
    return source_files(split)[0]


def source_files(split: SplitConfig) -> list[tuple[Path, Path]]:
    """Annotation files of a split, each with the folder of its pictures.

    Raises:
        ConfigError: if the recipe names no annotation file.
    """
    source = split.source
    if source.anno_path is None:
        raise ConfigError("the recipe names no annotation file (anno_path) for this; give a COCO json, or use --data")
    folder = Path(source.dataset_dir).expanduser()
    files = [source.anno_path] if isinstance(source.anno_path, str) else source.anno_path
    folders = [source.image_dir] * len(files) if isinstance(source.image_dir, str) else source.image_dir
    return [(folder / file, folder / images) for file, images in zip(files, folders, strict=True)]


def build_optimizer(config: Config, model: nn.Module, lr_scale: float) -> torch.optim.Optimizer:
    """Momentum SGD or AdamW over the groups of :func:`solov2.optim.parameter_groups`.

    Args:
        config: the recipe.
        model: to be trained.
        lr_scale: factor of the recipe's learning rate, for the number of devices.
    """
    optim = config.optim
    groups = parameter_groups(
        model, optim.base_lr * lr_scale, optim.weight_decay, optim.stage_lr_multipliers, uniform=optim.uniform
    )
    if optim.kind == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=optim.momentum)


def build_schedule(config: Config, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate's factor as a function of the optimizer step, from 0."""
    schedule, warm_up = config.optim.schedule, config.optim.warmup
    steps = 0 if warm_up is None else warm_up.length(steps_per_epoch)
    if isinstance(schedule, PiecewiseSchedule):
        milestones = [epoch * steps_per_epoch for epoch in schedule.milestones]
        factors = schedule.factors
        decay: Callable[[int], float] = lambda step: piecewise_factor(step, milestones, factors)  # noqa: E731
    else:
        stop, ratio = (schedule.max_epochs - schedule.plateau_epochs) * steps_per_epoch, schedule.min_lr_ratio
        start = max(steps, schedule.flat_epochs * steps_per_epoch)
        decay = lambda step: cosine_factor(step, start, stop, ratio)  # noqa: E731
    if warm_up is None:
        return decay
    return with_warm_up(WarmUp(steps, warm_up.start_factor, warm_up.kind, warm_up.power), decay)
