"""What PaddleDetection's keys mean here."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.config import load_config
from solov2.config.schema import ResNetConfig

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
        "OptimizerBuilder: {clip_grad_by_norm: 35, clip_grad_by_value: 1.5}\n"
        "ResNet: {lr_mult_list: [0.05, 0.05, 0.1, 0.15]}"
    )
    config = load_config(write(text))
    train, optim = config.train, config.optim
    assert (train.ema, train.ema_decay, train.ema_decay_type) == (True, 0.99, "exponential")
    assert (train.amp, train.amp_dtype, train.log_every, train.snapshot_epoch) == (True, "bfloat16", 5, 2)
    assert (train.save_dir, train.workers, train.seed, train.base_devices) == ("runs", 0, 3, 4)
    assert (optim.clip_norm, optim.clip_value) == (35.0, 1.5)
    assert optim.stage_lr_multipliers == (0.05, 0.05, 0.1, 0.15)


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


def test_mask_nms_as_a_name_or_as_a_block(write: Write) -> None:
    block = load_config(write("SOLOv2Head: {mask_nms: {name: MaskMatrixNMS, kernel: linear, sigma: 1.0}}")).decode
    named = load_config(
        write("SOLOv2Head: {mask_nms: MaskMatrixNMS}\nMaskMatrixNMS: {kernel: linear, sigma: 1.0}")
    ).decode
    assert block == named
    assert named.decay == "linear"


def test_harmless_keys_give_one_log_line(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "solov2")
    text = (
        "use_gpu: true\nuse_xpu: false\nuse_mlu: false\nuse_npu: false\nprint_flops: false\nprint_params: false\n"
        "find_unused_parameters: true\nexport: {post_process: true, nms: true}\n"
        "TrainDataset: {data_fields: [image]}\n"
        "TestReader: {inputs_def: {image_shape: [3, 640, 640]}, collate_batch: false}"
    )
    load_config(write(text))
    lines = [record.getMessage() for record in caplog.records if "change nothing" in record.getMessage()]
    assert len(lines) == 1
    for key in ("use_gpu", "use_npu", "export", "TrainDataset.data_fields", "TestReader.inputs_def"):
        assert key in lines[0]


def test_files_laid_out_as_in_paddledetection_give_the_shipped_recipe(write: Write) -> None:
    normalize = "NormalizeImage: {is_scale: true, mean: [0.485,0.456,0.406], std: [0.229, 0.224,0.225]}"
    resize = "Resize: {interp: 1, target_size: [800, 1333], keep_ratio: True}"
    # Normalising before resizing, as its evaluation lists do, comes to the same here.
    plain = (
        f"  sample_transforms:\n  - Decode: {{}}\n  - {normalize}\n  - {resize}\n  - Permute: {{}}\n  batch_size: 1\n"
    )
    write(
        "metric: COCO\nnum_classes: 80\nTrainDataset:\n  !COCODataSet\n    image_dir: train2017\n"
        "    anno_path: annotations/instances_train2017.json\n    dataset_dir: dataset/coco\n"
        "    data_fields: ['image']\n"
        "EvalDataset:\n  name: COCODataSet\n  image_dir: val2017\n"
        "  anno_path: annotations/instances_val2017.json\n  dataset_dir: dataset/coco\n"
        "TestDataset:\n  !ImageFolder\n    anno_path: annotations/instances_val2017.json  # names\n"
        "    dataset_dir: dataset/coco\n",
        "configs/datasets/coco_instance.yml",
    )
    write("use_gpu: true\nlog_iter: 20\nexport:\n  post_process: True\n  nms: True\n", "configs/runtime.yml")
    write(
        "pretrain_weights: https://paddledet.bj.bcebos.com/models/pretrained/ResNet50_cos_pretrained.pdparams\n"
        "SOLOv2:\n  backbone: ResNet\n  neck: FPN\n  solov2_head: SOLOv2Head\n  mask_head: SOLOv2MaskHead\n"
        "ResNet:\n  depth: 50\n  norm_type: bn\n  return_idx: [0,1,2,3]\nFPN:\n  out_channel: 256\n"
        "SOLOv2Head:\n  seg_feat_channels: 512\n  num_grids: [40, 36, 24, 16, 12]\n  mask_nms: MaskMatrixNMS\n"
        "OptimizerBuilder:\n  optimizer:\n    momentum: 0.9\n    type: Momentum\n"
        "  regularizer:\n    factor: 0.0001\n    type: L2\n"
        "worker_num: 8\nTrainReader:\n  sample_transforms:\n  - Decode: {}\n  - Poly2Mask: {}\n"
        f"  - {resize}\n  - RandomFlip: {{}}\n  - {normalize}\n  - Permute: {{}}\n  batch_transforms:\n"
        "  - PadBatch: {pad_to_stride: 32}\n  - Gt2Solov2Target: {num_grids: [40, 36, 24, 16, 12],\n"
        "                        scale_ranges: [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]}\n"
        f"  batch_size: 2\n  shuffle: true\n  drop_last: true\nEvalReader:\n{plain}TestReader:\n{plain}",
        "configs/solov2/_base_/everything.yml",
    )
    path = write(
        "_BASE_: [\n  '../datasets/coco_instance.yml',\n  '../runtime.yml',\n  '_base_/everything.yml',\n]\n"
        "weights: output/solov2_r50_fpn_1x_coco/model_final\nepoch: 12\nLearningRate:\n  base_lr: 0.01\n"
        "  schedulers:\n  - !PiecewiseDecay\n    gamma: 0.1\n    milestones: [8, 11]\n"
        "  - !LinearWarmup\n    start_factor: 0.\n    steps: 1000\n",
        "configs/solov2/solov2_r50_fpn_1x_coco.yml",
    )
    assert load_config(path) == load_config("solov2_r50_fpn_1x_coco")


def test_a_setting_left_out_keeps_the_default_of_its_place(write: Write) -> None:
    data = load_config(write("TestDataset: {image_dir: mine}\nEvalDataset: {image_dir: theirs}")).data
    assert (data.test.source.kind, data.eval.source.kind) == ("folder", "coco")
