"""The shipped recipes against values written down by hand, and the promise that reading them needs no torch."""

import subprocess
import sys
from typing import Any

import pytest

from solov2.config import Config, describe, load, load_config, shipped_recipes
from solov2.config.schema import PYRAMID_STRIDES

RESNET50 = {
    "kind": "resnet", "depth": 50, "variant": "b", "freeze_at": 0, "freeze_norm": True, "sync_norm": False,
}  # fmt: skip
ONE_SCALE = {"name": "Resize", "args": {"target_size": [800, 1333], "keep_ratio": True, "min_scale": None}}
FLIP = {"name": "RandomFlip", "args": {"prob": 0.5, "vertical_prob": 0.0}}


def sizes(short: range, long: int) -> dict[str, Any]:
    listed = [[side, long] for side in short]
    return {"name": "RandomResize", "args": {"target_size": listed, "keep_ratio": True, "min_scale": None}}


def source(kind: str, images: str, annotations: str) -> dict[str, Any]:
    return {
        "kind": kind, "dataset_dir": "dataset/coco", "image_dir": images, "anno_path": f"annotations/{annotations}",
        "allow_empty": False, "sample_num": -1,
    }  # fmt: skip


def data(train: list[dict[str, Any]], test: dict[str, Any], batch_size: int) -> dict[str, Any]:
    reader = {"transforms": [test], "batch_size": 1, "shuffle": False, "drop_last": False, "group_by_size": False}
    return {
        "train": {
            "source": source("coco", "train2017", "instances_train2017.json"),
            "reader": {
                "transforms": train,
                "batch_size": batch_size,
                "shuffle": True,
                "drop_last": True,
                "group_by_size": False,
            },
        },
        "eval": {"source": source("coco", "val2017", "instances_val2017.json"), "reader": reader},
        "test": {"source": source("folder", "", "instances_val2017.json"), "reader": reader},
        "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "pad_stride": 32,
    }


def resnet_recipe(name: str, epochs: int, milestones: list[int], train: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "model": {
            "num_classes": 80,
            "backbone": RESNET50,
            "fpn": {"channels": 256, "extra_levels": 1},
            "mask_branch": {"mid_channels": 128, "out_channels": 256},
            "grid_head": {
                "grid_sizes": [40, 36, 24, 16, 12], "strides": [8, 8, 16, 32, 32], "channels": 512, "depth": 4,
                "kernel_channels": 256, "drop_block": False,
            },
        },
        "assign": {
            "size_ranges": [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]], "center_scale": 0.2,
        },
        "loss": {"mask_weight": 3.0, "focal_gamma": 2.0, "focal_alpha": 0.25},
        "decode": {
            "score_threshold": 0.1, "mask_threshold": 0.5, "pre_nms_top_n": 500, "post_nms_top_n": 100,
            "update_threshold": 0.05, "decay": "gaussian", "sigma": 2.0,
        },
        "optim": {
            "kind": "sgd", "base_lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4,
            "stage_lr_multipliers": [1, 1, 1, 1], "clip_norm": None, "clip_value": None,
            "schedule": {"kind": "piecewise", "milestones": milestones, "factors": [0.1, 0.01]},
            "warmup": {"kind": "linear", "steps": 1000, "epochs": None, "start_factor": 0.0, "power": 2.0},
        },
        "train": {
            "epochs": epochs, "seed": 0, "snapshot_epoch": 1, "log_every": 20, "save_dir": "output",
            "init_weights": "https://paddledet.bj.bcebos.com/models/pretrained/ResNet50_cos_pretrained.pdparams",
            "weights": f"output/{name}/model_final", "amp": False, "amp_dtype": "auto", "ema": False,
            "ema_decay": 0.9998, "ema_decay_type": "threshold", "workers": 8, "base_devices": 8,
        },
        "data": data(train, ONE_SCALE, batch_size=2),
        "metric": "COCO",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "epochs", "milestones", "resize"),
    [
        ("solov2_r50_fpn_1x_coco", 12, [8, 11], ONE_SCALE),
        ("solov2_r50_fpn_3x_coco", 36, [24, 33], sizes(range(640, 801, 32), 1333)),
    ],
)
def test_the_published_recipes(name: str, epochs: int, milestones: list[int], resize: dict[str, Any]) -> None:
    config = load_config(f"configs/solov2/{name}.yml")
    assert config.model_dump(mode="json") == resnet_recipe(name, epochs, milestones, [resize, FLIP])


def test_the_small_recipe_has_the_shape_its_weights_need() -> None:
    config = load_config("nano")
    assert config.model.model_dump(mode="json") == {
        "num_classes": 80,
        "backbone": {"kind": "shufflenetv2", "width": 1.0, "freeze_at": -1, "freeze_norm": False},
        "fpn": {"channels": 96, "extra_levels": 0},
        "mask_branch": {"mid_channels": 64, "out_channels": 64},
        "grid_head": {
            "grid_sizes": [40, 24, 16, 12], "strides": [8, 8, 16, 32], "channels": 96, "depth": 2,
            "kernel_channels": 64, "drop_block": False,
        },
    }  # fmt: skip
    assert config.assign.size_ranges == ((1, 64), (32, 128), (64, 256), (128, 2048))
    assert (config.optim.kind, config.optim.weight_decay) == ("adamw", 0.05)
    assert config.optim.schedule.model_dump() == {
        "kind": "cosine", "max_epochs": config.train.epochs, "min_lr_ratio": 0.0, "plateau_epochs": 0,
    }  # fmt: skip
    assert (config.train.init_weights, config.train.base_devices, config.train.ema) == ("shufflenetv2_1.0x", 1, True)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_survives_json(name: str) -> None:
    config = load_config(name)
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert set(config.model.grid_head.strides) <= set(PYRAMID_STRIDES)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_can_be_described(name: str) -> None:
    loaded = load(name, ["epoch=99"])
    rows = {key: (value, origin) for key, value, origin in describe(loaded)}
    assert rows["epoch"] == (99, "-o")
    assert rows["metric"][1].endswith("coco_instance.yml:2")
    assert rows["seed"] == (0, "default")
    assert rows["TestDataset.name"][0] == "ImageFolder"
    assert len(rows) == len(describe(loaded)), "two settings share one key"


def test_described_keys_follow_the_backbone() -> None:
    keys = {key for key, _, _ in describe(load("nano"))}
    assert "ShuffleNetV2.lr_mult_list" in keys
    assert not any(key.startswith("ResNet.") for key in keys)


def test_a_description_spells_values_like_a_recipe() -> None:
    rows = {key: value for key, value, _ in describe(load("solov2_r50_fpn_1x_coco", ["ResNet.norm_type=sync_bn"]))}
    assert rows["ResNet.norm_type"] == "sync_bn"
    assert rows["SOLOv2.backbone"] == "ResNet"
    assert rows["OptimizerBuilder.optimizer.type"] == "Momentum"


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys; from solov2.config import load_config; load_config('nano'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
