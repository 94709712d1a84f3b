"""What PaddleDetection's keys mean here."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.config import load_config
from solov2.config.schema import GridHeadConfig, MaskBranchConfig, ResNetConfig

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("sgd", 0.9, 1e-4)),
        ("optimizer: {type: Momentum, momentum: 0.8}", ("sgd", 0.8, 1e-4)),
        ("regularizer: {type: L2, factor: 5e-4}", ("sgd", 0.9, 5e-4)),
        ("regularizer: null", ("sgd", 0.9, 0.0)),
        ("optimizer: {type: SGD, momentum: 0.9}", ("sgd", 0.0, 1e-4)),
        ("optimizer: {type: AdamW, momentum: 0.9, weight_decay: 0.05}", ("adamw", 0.9, 0.05)),
        ("optimizer: {type: AdamW, weight_decay: 0.05}\n  regularizer: {type: L2, factor: 1}", ("adamw", 0.9, 0.05)),
    ],
)
def test_optimizers(write: Write, text: str, expected: tuple[str, float, float]) -> None:
    optim = load_config(write(f"OptimizerBuilder:\n  {text}\n")).optim
    assert (optim.kind, optim.momentum, optim.weight_decay) == expected


def test_run_keys(write: Write) -> None:
    text = (
        "use_ema: yes\nema_decay: 0.99\nema_decay_type: exponential\namp: true\namp_level: O1\namp_dtype: bfloat16\n"
        "log_iter: 5\nsnapshot_epoch: 2\nsave_dir: runs\nworker_num: 0\nseed: 3\nbase_devices: 4\n"
        "OptimizerBuilder: {clip_grad_by_norm: 35}\n"
        "ResNet: {lr_mult_list: [0.05, 0.05, 0.1, 0.15]}"
    )
    config = load_config(write(text))
    train, optim = config.train, config.optim
    assert (train.ema, train.ema_decay, train.ema_decay_type) == (True, 0.99, "exponential")
    assert (train.amp, train.amp_dtype, train.log_every, train.snapshot_epoch) == (True, "bfloat16", 5, 2)
    assert (train.save_dir, train.workers, train.seed, train.base_devices) == ("runs", 0, 3, 4)
    assert (optim.clip_norm, optim.clip_value) == (35.0, None)
    assert optim.stage_lr_multipliers == (0.05, 0.05, 0.1, 0.15)


def test_clipping_by_value(write: Write) -> None:
    text = "OptimizerBuilder: {clip_grad_by_norm: null, clip_grad_by_value: 1.5}"
    optim = load_config(write(text)).optim
    assert (optim.clip_norm, optim.clip_value) == (None, 1.5)


@pytest.mark.parametrize(("norm", "shared"), [("bn", False), ("sync_bn", True)])
def test_backbone_norms(write: Write, norm: str, shared: bool) -> None:
    backbone = load_config(write(f"ResNet: {{norm_type: {norm}, freeze_norm: false, norm_decay: 0.}}")).model.backbone
    assert backbone == ResNetConfig(sync_norm=shared, freeze_norm=False)


def test_the_block_of_another_backbone_is_set_aside(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "solov2")
    text = "SOLOv2: {backbone: ShuffleNetV2}\nResNet: {depth: 18, dcn_v2_stages: [1]}\nShuffleNetV2: {freeze_at: 1}"
    backbone = load_config(write(text)).model.backbone
    assert (backbone.kind, backbone.freeze_at) == ("shufflenetv2", 1)
    assert "ResNet.depth" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("norm_eval: true, freeze_norm: false", ResNetConfig(norm_eval=True, freeze_norm=False)),
        ("depth: 101, groups: 64, base_width: 4", ResNetConfig(depth=101, groups=64, base_width=4)),
        ("depth: 18, project_first: false", ResNetConfig(depth=18, project_first=False)),
        ("dcn_v2_stages: [1, 2, 3]", ResNetConfig(dcn_stages=(1, 2, 3))),
        ("dcn_v2_stages: 3", ResNetConfig(dcn_stages=(3,))),
        ("dcn_v2_stages: [-1]", ResNetConfig(dcn_stages=())),
        ("dcn_v2_stages: [2], dcn_version: 1", ResNetConfig(dcn_stages=(2,), dcn_version=1)),
    ],
)
def test_backbone_keys(write: Write, text: str, expected: ResNetConfig) -> None:
    assert load_config(write(f"ResNet: {{{text}}}")).model.backbone == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", GridHeadConfig()),
        ("dcn_v2_stages: [0, 3]", GridHeadConfig(dcn_stages=(0, 3))),
        ("dcn_v2_stages: [1], dcn_version: 1", GridHeadConfig(dcn_stages=(1,), dcn_version=1)),
        ("norm_type: bn", GridHeadConfig(norm="bn")),
        ("drop_block: true", GridHeadConfig(drop_block=True)),
    ],
)
def test_head_keys(write: Write, text: str, expected: GridHeadConfig) -> None:
    assert load_config(write(f"SOLOv2Head: {{{text}}}")).model.grid_head == expected


def test_mask_head_keys(write: Write) -> None:
    text = "SOLOv2MaskHead: {use_dcn_in_tower: true, norm_type: sync_bn}"
    assert load_config(write(text)).model.mask_branch == MaskBranchConfig(dcn=True, norm="sync_bn")


def test_one_rate_and_decay_for_all(write: Write) -> None:
    assert load_config(write("OptimizerBuilder: {uniform: true}")).optim.uniform
    assert not load_config(write("OptimizerBuilder: {regularizer: {factor: 0.1}}")).optim.uniform


@pytest.mark.parametrize("value", ["''", "null", ""])
def test_no_weights_to_start_from(value: str) -> None:
    train = load_config("solov2_r50_fpn_1x_coco", [f"pretrain_weights={value}", f"weights={value}"]).train
    assert (train.init_weights, train.weights) == (None, None)


def test_harmless_keys_give_one_log_line(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "solov2")
    text = (
        "use_gpu: true\nuse_xpu: false\nuse_mlu: false\nuse_npu: false\nprint_flops: false\nprint_params: false\n"
        "find_unused_parameters: true\nexport: {post_process: true, nms: true, benchmark: false, fuse_conv_bn: true}\n"
        "use_vdl: true\nvdl_log_dir: vdl\nuse_wandb: false\nwandb: {project: p}\nema_filter_no_grad: true\n"
        "init_loss_scaling: 1024\nmaster_grad: true\ncustom_white_list: [conv2d]\ncustom_black_list: null\n"
        "EvalReader: {fuse_normalize: true, batch_size: 1}\n"
        "TrainDataset: {data_fields: [image]}\n"
        "TestReader: {inputs_def: {image_shape: [3, 640, 640]}, collate_batch: false}"
    )
    load_config(write(text))
    lines = [record.getMessage() for record in caplog.records if "change nothing" in record.getMessage()]
    assert len(lines) == 1
    for key in ("use_gpu", "use_npu", "export.nms", "wandb", "TrainDataset.data_fields", "TestReader.inputs_def"):
        assert key in lines[0]


def test_a_setting_left_out_keeps_the_default_of_its_place(write: Write) -> None:
    data = load_config(write("TestDataset: {image_dir: mine}\nEvalDataset: {image_dir: theirs}")).data
    assert (data.test.source.kind, data.eval.source.kind) == ("folder", "coco")
