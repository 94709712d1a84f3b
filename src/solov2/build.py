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
from solov2.data.coco import CocoDataset, load_coco
from solov2.data.transforms import Transform, build_transforms
from solov2.decoding import Decay
from solov2.errors import ConfigError
from solov2.losses import SOLOv2Loss
from solov2.model.fpn import FPN
from solov2.model.grid_head import GridHead
from solov2.model.layers import EvalBatchNorm2d, FrozenBatchNorm2d, NormFactory, SharedBatchNorm2d, group_norm
from solov2.model.mask_branch import MaskBranch
from solov2.model.resnet import ResNet
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
    head, fpn = config.model.grid_head, config.model.fpn
    mask_branch = config.model.mask_branch
    return SOLOv2(
        backbone=backbone,
        fpn=FPN(backbone.channels, fpn.channels, fpn.extra_levels),
        mask_branch=MaskBranch(
            fpn.channels,
            mask_branch.mid_channels,
            mask_branch.out_channels,
            dcn=mask_branch.dcn,
            norm=HEAD_NORMS[mask_branch.norm],
        ),
        grid_head=GridHead(
            config.model.num_classes,
            grid_sizes=head.grid_sizes,
            strides=head.strides,
            in_channels=fpn.channels,
            channels=head.channels,
            depth=head.depth,
            kernel_channels=head.kernel_channels,
            drop_block=head.drop_block,
            dcn_stages=head.dcn_stages,
            dcn_version=head.dcn_version,
            norm=HEAD_NORMS[head.norm],
        ),
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
    assign = Assigner(config.model.grid_head.grid_sizes, config.assign.size_ranges, config.assign.center_scale)
    loss = config.loss
    return SOLOv2Loss(assign, mask_weight=loss.mask_weight, focal_gamma=loss.focal_gamma, focal_alpha=loss.focal_alpha)


def decode_options(config: Config) -> DecodeOptions:
    """The recipe's arguments of :func:`solov2.decode`."""
    options: DecodeOptions = config.decode.model_dump()  # type: ignore[assignment]  # the same names by design
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
    json_path, image_dir = source_paths(split)
    return CocoDataset(
        load_coco(json_path, image_dir),
        image_dir,
        transforms=build_split_transforms(split),
        categories=categories,
        with_annotations=training,
        allow_empty=split.source.allow_empty,
        strict=strict,
        seed=config.train.seed,
        limit=split.source.sample_num,
    )


def source_paths(split: SplitConfig) -> tuple[Path, Path]:
    """Annotation file and picture folder of a split.

    Raises:
        ConfigError: if the recipe names no annotation file.
    """
    source = split.source
    if source.anno_path is None:
        raise ConfigError("the recipe names no annotation file (anno_path) for this; give a COCO json, or use --data")
    folder = Path(source.dataset_dir).expanduser()
    return folder / source.anno_path, folder / source.image_dir


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
