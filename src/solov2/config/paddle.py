"""PaddleDetection's recipe keys, and what each means here: no module but the paddle ones knows those names.

A key is understood (`Take`, `Expand`), known with the only value that is supported (`Only`), known and without
effect (`Ignored`), or an error. Meanings follow PaddleDetection at commit 666f597f. Keys of our own:
`ShuffleNetV2`, `base_devices`, `seed`, `amp_dtype`, `group_by_size`, `Resize.min_scale`, `RandomResize.min_scale`,
`RandomFlip.vertical_prob`, `RandomRotate90`, `LargeScaleJitter`, `CopyPaste`, `SOLOv2Head.dcn_version`,
`ResNet.{dcn_version,norm_eval,project_first}`, `OptimizerBuilder.uniform`, `CosineDecay.flat_epochs`,
`checkpoint_minutes`, `checkpoint_steps`, `accumulate`, `freeze`, `GhostPAN`, `SOLOv2.position`, `SOLOv2Head.separable`,
`num_grids: native`, `SOLOv2MaskHead.refinements`, `SOLOv2Head.least_part`, `SOLOv2Loss.top_cells`, `RandomPatch`,
`TrainReader.repeat_area`, lists in `anno_path` and `image_dir`.
Shared and injected keys are in `paddle_shared.py`, lists of operators in `paddle_operators.py`, the optimizer's in
`paddle_optimizer.py` and the learning rate's in `paddle_schedules.py`.
"""

from __future__ import annotations

import logging
from pathlib import PurePath
from typing import Any

from solov2.config.paddle_operators import expand_batch_transforms, expand_sample_transforms, require_normalization
from solov2.config.paddle_optimizer import OPTIMIZERS, optimizer_rules
from solov2.config.paddle_schedules import expand_schedulers
from solov2.config.paddle_shared import HEAD, MASK, NORMS, expand_norm_type, injected_rules, native_to_empty, settle
from solov2.config.schema import Config, ModelConfig, PiecewiseSchedule
from solov2.config.translate import Expand, Ignored, Only, Rule, Take, Translation, one_of, resolve, shown
from solov2.config.yaml_tree import Problem, Tree

logger = logging.getLogger(__name__)

_BACKBONES = {"ResNet": "resnet", "ShuffleNetV2": "shufflenetv2"}
_NECKS = {"FPN": "fpn", "GhostPAN": "ghost_pan"}
_SOURCES = {"COCODataSet": "coco", "ImageFolder": "folder"}
_FIXED = "this version's layers have it fixed; leave it out"


def translate(tree: Tree, problems: list[Problem], file: PurePath) -> tuple[Config, Translation]:
    """Turns a recipe into a Config.

    Args:
        tree: the recipe with its bases and overrides.
        problems: what was found wrong while reading it; reported with the rest.
        file: the recipe's; its stem names the run.

    Returns:
        The Config, and the translation that knows where each setting came from.

    Raises:
        ConfigError: with one line for every problem.
    """
    state = Translation(str(file), tree, list(problems))
    values = settle(state, tree.values)
    if "architecture" not in values:
        state.complain(("architecture",), "is required: a recipe of this package says `architecture: SOLOv2`")
    block = values.get("SOLOv2")
    for part, blocks in (("backbone", _BACKBONES), ("neck", _NECKS)):
        chosen = str(block.get(part, next(iter(blocks)))) if isinstance(block, dict) else next(iter(blocks))
        for other in blocks.keys() & values.keys() - {chosen}:
            # A base may configure another one than its file chooses: only the names of its keys matter.
            idle: dict[str, Rule] = {key: Ignored() for key in RULES if key.startswith(f"{other}.")}
            state.walk({other: values.pop(other)}, idle)
    state.walk(values, RULES)
    if any(target.startswith("model.backbone.") for target in state.settings):
        state.settings.setdefault("model.backbone.kind", ModelConfig().backbone.kind)
    for reader in _SPLITS:
        require_normalization(state, f"{reader}Reader")
    config = resolve(state, file.stem)
    _warn_of_lengths(config)
    return config, state


def _warn_of_lengths(config: Config) -> None:
    schedule, epochs = config.optim.schedule, config.train.epochs
    if isinstance(schedule, PiecewiseSchedule):
        if late := [milestone for milestone in schedule.milestones if milestone >= epochs]:
            logger.warning("the learning rate's milestones %s lie beyond the last of %d epochs", late, epochs)
    elif schedule.max_epochs != epochs:
        logger.warning("the learning rate falls over %d epochs, training has %d", schedule.max_epochs, epochs)


# ------------------------------------------------------------------------------------------ converters


def _stages(value: Any) -> Any:
    """PaddleDetection writes [-1] for no stage, and allows a number for a list of one."""
    stages = [value] if type(value) is int else value
    return [] if stages == [-1] else stages


def _null_to_empty(value: Any) -> Any:
    return "" if value is None else value


def _one_or_several(value: Any) -> Any:
    """A path, or a list of them: PaddleDetection has no such list."""
    texts = value if isinstance(value, list) else [value]
    if value is not None and not (texts and all(isinstance(text, str) for text in texts)):
        raise ValueError(f"expected text, or a list of texts, got {shown(value)}")
    return texts[0] if len(texts) == 1 else texts


def _folder_or_several(value: Any) -> Any:
    return _one_or_several(_null_to_empty(value))


def _empty_to_null(value: Any) -> Any:
    return None if value == "" else value


# ------------------------------------------------------------------------------------------- the table

_SPLITS = {"Train": "data.train", "Eval": "data.eval", "Test": "data.test"}


def _run_rules() -> dict[str, Rule]:
    harmless = (
        "use_gpu use_xpu use_mlu use_npu use_gcu print_flops print_params filename find_unused_parameters fleet "
        "to_static init_loss_scaling master_grad custom_white_list custom_black_list ema_filter_no_grad use_vdl "
        "vdl_log_dir use_wandb wandb classwise bias save_prediction_only target_metrics enable_ce profiler_options "
        "log_ranks uniform_output_enabled"
    )
    export = "post_process nms benchmark fuse_conv_bn"
    compression = "slim slim_type distill_loss unstructured_prune QAT PTQ Pruner UnstructuredPruner DistillPrune OFA"
    compressed = "distilling, pruning and quantising are not part of this version; take it out"
    return {
        "architecture": Only(("SOLOv2",), "this package is SOLOv2 only"),
        "metric": Take("metric", one_of({"COCO": "COCO"})),
        "num_classes": Take("model.num_classes"),
        "norm_type": Expand(expand_norm_type),
        "pretrain_weights": Take("train.init_weights", _empty_to_null),
        "weights": Take("train.weights", _empty_to_null),
        "epoch": Take("train.epochs"),
        "snapshot_epoch": Take("train.snapshot_epoch"),
        "max_iters": Only((), "recipes from before PaddleDetection 2 count steps; state epoch"),
        "snapshot_iter": Only((), "recipes from before PaddleDetection 2 count steps; state snapshot_epoch"),
        "log_iter": Take("train.log_every"),
        "save_dir": Take("train.save_dir"),
        "worker_num": Take("train.workers"),
        "seed": Take("train.seed"),
        "base_devices": Take("train.base_devices"),
        **{
            key: Take(f"train.{key}")
            for key in ("checkpoint_minutes", "checkpoint_steps", "accumulate", "run_name", "freeze")
        },
        "amp": Take("train.amp"),
        "amp_level": Only(("O1",), "use O1; amp: false switches mixed precision off"),
        "amp_dtype": Take("train.amp_dtype"),
        "use_ema": Take("train.ema"),
        "ema_decay": Take("train.ema_decay"),
        "ema_decay_type": Take("train.ema_decay_type"),
        "cycle_epoch": Only((-1,), "the average is never restarted; use -1"),
        "ema_black_list": Only((None, []), "every tensor is averaged; leave it out"),
        "ema_start_iters": Only((0,), "the average begins with training; use 0"),
        **{key: Ignored() for key in harmless.split()},
        **{f"export.{key}": Ignored() for key in export.split()},
        **{key: Only((None, False), compressed) for key in compression.split()},
    }


def _backbone_rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for block, keys in {"ResNet": ("depth", "variant"), "ShuffleNetV2": ("width",)}.items():
        rules |= {f"{block}.{key}": Take(f"model.backbone.{key}") for key in (*keys, "freeze_at", "freeze_norm")}
        rules[f"{block}.lr_mult_list"] = Take("optim.stage_lr_multipliers")
    return rules | {
        "ResNet.norm_type": Take("model.backbone.sync_norm", one_of(NORMS)),
        "ResNet.norm_decay": Only((0, 0.0), "norms are never decayed; use 0"),
        "ResNet.return_idx": Only(([0, 1, 2, 3],), "the pyramid needs all four stages: [0, 1, 2, 3]"),
        "ResNet.num_stages": Only((4,), "the pyramid needs all four stages"),
        "ResNet.dcn_v2_stages": Take("model.backbone.dcn_stages", _stages),
        "ResNet.groups": Take("model.backbone.groups"),
        "ResNet.base_width": Take("model.backbone.base_width"),
        **{f"ResNet.{key}": Take(f"model.backbone.{key}") for key in ("dcn_version", "norm_eval", "project_first")},
        "ResNet.ch_in": Only((64,), _FIXED),
        "ResNet.std_senet": Only((False,), "squeeze-and-excitation is not part of this version; use false"),
        "ResNet.freeze_stem_only": Only((False,), "use freeze_at"),
    }


def _model_rules() -> dict[str, Rule]:
    head, mask = HEAD, MASK
    return {
        "SOLOv2.backbone": Take("model.backbone.kind", one_of(_BACKBONES)),
        "SOLOv2.neck": Take("model.fpn.kind", one_of(_NECKS)),
        "SOLOv2.position": Take("model.position"),
        "SOLOv2.solov2_head": Only((head,), f"use {head}"),
        "SOLOv2.mask_head": Only((mask,), f"use {mask}"),
        **_backbone_rules(),
        "FPN.out_channel": Take("model.fpn.channels"),
        "FPN.extra_stage": Take("model.fpn.extra_levels"),
        "FPN.in_channels": Ignored(),
        "FPN.spatial_scales": Ignored(),
        "FPN.has_extra_convs": Only((False,), "coarser levels are made by subsampling; use false"),
        "FPN.use_c5": Only((True,), "coarser levels are made by subsampling; use true"),
        "FPN.relu_before_extra_convs": Ignored(),
        "FPN.norm_type": Only((None,), "the pyramid has no norm; use null"),
        "FPN.norm_decay": Ignored(),
        "FPN.freeze_norm": Ignored(),
        "GhostPAN.out_channel": Take("model.fpn.channels"),
        f"{mask}.in_channels": Take("model.fpn.channels"),
        f"{mask}.mid_channels": Take("model.mask_branch.mid_channels"),
        f"{mask}.out_channels": Take("model.mask_branch.out_channels"),
        f"{mask}.refinements": Take("model.mask_branch.refinements"),
        f"{mask}.start_level": Only((0,), "the mask branch reads p2..p5; use 0"),
        f"{mask}.end_level": Only((3,), "the mask branch reads p2..p5; use 3"),
        f"{mask}.use_dcn_in_tower": Take("model.mask_branch.dcn"),
        f"{mask}.norm_type": Take("model.mask_branch.norm"),
        f"{head}.num_classes": Take("model.num_classes"),
        f"{head}.in_channels": Take("model.fpn.channels"),
        f"{head}.seg_feat_channels": Take("model.grid_head.channels"),
        f"{head}.stacked_convs": Take("model.grid_head.depth"),
        f"{head}.num_grids": Take("model.grid_head.grid_sizes", native_to_empty),
        f"{head}.separable": Take("model.grid_head.separable"),
        f"{head}.segm_strides": Take("model.grid_head.strides"),
        f"{head}.kernel_out_channels": Take("model.grid_head.kernel_channels"),
        f"{head}.drop_block": Take("model.grid_head.drop_block"),
        f"{head}.dcn_v2_stages": Take("model.grid_head.dcn_stages", _stages),
        f"{head}.dcn_version": Take("model.grid_head.dcn_version"),
        f"{head}.norm_type": Take("model.grid_head.norm"),
        **injected_rules(lambda: RULES),
    }


def _loss_and_decode_rules() -> dict[str, Rule]:
    nms = {key: key for key in ("pre_nms_top_n", "post_nms_top_n", "update_threshold", "sigma")} | {"kernel": "decay"}
    return {
        "SOLOv2Head.score_threshold": Take("decode.score_threshold"),
        "SOLOv2Head.mask_threshold": Take("decode.mask_threshold"),
        "SOLOv2Head.least_part": Take("decode.least_part"),  # our own
        **{f"MaskMatrixNMS.{key}": Take(f"decode.{field}") for key, field in nms.items()},
        "SOLOv2Loss.ins_loss_weight": Take("loss.mask_weight"),
        "SOLOv2Loss.focal_loss_gamma": Take("loss.focal_gamma"),
        "SOLOv2Loss.focal_loss_alpha": Take("loss.focal_alpha"),
        "SOLOv2Loss.top_cells": Take("loss.top_cells"),
    }


def _optim_rules() -> dict[str, Rule]:
    return {
        "LearningRate.base_lr": Take("optim.base_lr"),
        "LearningRate.schedulers": Expand(expand_schedulers),
        **optimizer_rules(),
    }


def _data_rules() -> dict[str, Rule]:
    reader_harmless = (
        "num_classes collate_batch use_shared_memory inputs_def fuse_normalize drop_empty use_process bufsize memsize"
    )
    rules: dict[str, Rule] = {}
    for split, target in _SPLITS.items():
        kinds = _SOURCES if split == "Test" else {"COCODataSet": "coco"}  # a bare folder has no masks to learn from
        source, reader = f"{target}.source", f"{target}.reader"
        rules |= {
            f"{split}Dataset.name": Take(f"{source}.kind", one_of(kinds)),
            f"{split}Dataset.dataset_dir": Take(f"{source}.dataset_dir", _null_to_empty),
            f"{split}Dataset.image_dir": Take(f"{source}.image_dir", _folder_or_several),
            f"{split}Dataset.anno_path": Take(f"{source}.anno_path", _one_or_several),
            f"{split}Dataset.allow_empty": Take(f"{source}.allow_empty"),
            f"{split}Dataset.sample_num": Take(f"{source}.sample_num"),
            f"{split}Dataset.data_fields": Ignored(),
            f"{split}Dataset.use_default_label": Ignored(),
            f"{split}Dataset.keep_ori_im": Ignored(),
            f"{split}Dataset.empty_ratio": Only((1, 1.0), "all pictures without objects are kept; use 1.0"),
            f"{split}Dataset.load_crowd": Only((False,), "crowd regions are not trained; use false"),
            f"{split}Dataset.repeat": Only((1,), "use 1 and more epochs"),
            f"{split}Reader.sample_transforms": Expand(expand_sample_transforms),
            f"{split}Reader.batch_transforms": Expand(expand_batch_transforms),
            f"{split}Reader.batch_size": Take(f"{reader}.batch_size"),
            f"{split}Reader.shuffle": Take(f"{reader}.shuffle"),
            f"{split}Reader.drop_last": Take(f"{reader}.drop_last"),
            f"{split}Reader.group_by_size": Take(f"{reader}.group_by_size"),  # our own
            f"{split}Reader.repeat_area": Take(f"{reader}.repeat_area")  # our own
            if split == "Train"
            else Only((None,), "pictures are taken several times in training alone; leave it out"),
            **{
                f"{split}Reader.{key}": Only((-1,), "this augmentation is not part of this version; use -1")
                for key in ("mixup_epoch", "cutmix_epoch", "mosaic_epoch")
            },
            **{f"{split}Reader.{key}": Ignored() for key in reader_harmless.split()},
        }
    return rules


RULES: dict[str, Rule] = {
    **_run_rules(),
    **_model_rules(),
    **_loss_and_decode_rules(),
    **_optim_rules(),
    **_data_rules(),
}


def recipe_key(target: str, config: Config) -> str:
    """The recipe key that sets a schema path; the path itself where a list of operators holds it."""
    key = _KEYS.get(target, target)
    block, _, name = key.partition(".")
    if block in _BACKBONES:
        return f"{_SPELLINGS['model.backbone.kind'][config.model.backbone.kind]}.{name}"
    if target == "model.fpn.channels":
        return f"{_SPELLINGS['model.fpn.kind'][config.model.fpn.kind]}.{name}"
    return key


_KEYS = {rule.target: key for key, rule in reversed(RULES.items()) if isinstance(rule, Take)} | {
    "optim.kind": "OptimizerBuilder.optimizer.type",
    "optim.momentum": "OptimizerBuilder.optimizer.momentum",
    "optim.weight_decay": "OptimizerBuilder.regularizer.factor",
    "optim.schedule": "LearningRate.schedulers[0]",
    "optim.warmup": "LearningRate.schedulers[1]",
    **{f"{target}.reader.transforms": f"{split}Reader.sample_transforms" for split, target in _SPLITS.items()},
}


_SPELLINGS: dict[str, dict[Any, str]] = {
    target: {value: name for name, value in table.items()}
    for table, targets in (
        (_BACKBONES, ["model.backbone.kind"]),
        (_NECKS, ["model.fpn.kind"]),
        (NORMS, ["model.backbone.sync_norm"]),
        (OPTIMIZERS, ["optim.kind"]),
        (_SOURCES, [f"{split}.source.kind" for split in _SPLITS.values()]),
    )
    for target in targets
}


def recipe_value(target: str, value: Any) -> Any:
    """A setting's value as the recipe spells it."""
    if target == "model.grid_head.grid_sizes" and not value:
        return "native"
    return _SPELLINGS[target][value] if target in _SPELLINGS else value
