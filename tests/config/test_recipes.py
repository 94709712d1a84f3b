"""The shipped recipes against values written down by hand, and the promise that reading them needs no torch."""

import subprocess
import sys
from typing import Any

import pytest

from solov2.config import Config, describe, load, load_config, shipped_recipes
from solov2.config.schema import PYRAMID_STRIDES

PADDLE = "https://paddledet.bj.bcebos.com/models/pretrained/"
TORCHVISION = "https://download.pytorch.org/models/"
MSRA = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/"

STANDARD = [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]
LIGHT_448 = [[1, 56], [28, 112], [56, 224], [112, 448], [224, 896]]
LIGHT_512 = [[1, 64], [32, 128], [64, 256], [128, 512], [256, 2048]]

FLIP = {"name": "RandomFlip", "args": {"prob": 0.5, "vertical_prob": 0.0}}
DISTORT = {
    "name": "RandomDistort",
    "args": {
        "hue": [-18, 18, 0.5], "saturation": [0.5, 1.5, 0.5], "contrast": [0.5, 1.5, 0.5],
        "brightness": [0.5, 1.5, 0.5], "random_apply": True, "count": 4, "prob": 1, "random_channel": False,
    },
}  # fmt: skip
CROP = {
    "name": "RandomCrop",
    "args": {
        "aspect_ratio": [0.5, 2], "thresholds": [0, 0.1, 0.3, 0.5, 0.7, 0.9], "scaling": [0.3, 1],
        "num_attempts": 50, "allow_no_crop": True, "cover_all_box": False, "ioumode": "iou", "prob": 1,
    },
}  # fmt: skip


def one_size(short: int, long: int) -> dict[str, Any]:
    args = {"target_size": [short, long], "keep_ratio": True, "min_scale": None, "interp": 1}
    return {"name": "Resize", "args": args}


def six_sizes(first: int, last: int, long: int) -> dict[str, Any]:
    sizes = [[short, long] for short in range(first, last + 1, 32)]
    assert len(sizes) == 6
    args = one_size(0, 0)["args"] | {"target_size": sizes, "random_range": False, "random_interp": False}
    return {"name": "RandomResize", "args": args}


ONE_SCALE = [one_size(800, 1333), FLIP]
SIX_SCALES = [six_sizes(640, 800, 1333), FLIP]

# Every value that is not the same in all of them, as published; see the columns' names below.
TABLE: dict[str, dict[str, Any]] = {
    # PaddleDetection
    "solov2_r50_fpn_1x_coco": {},
    "solov2_r50_fpn_3x_coco": {"epochs": 36, "milestones": [24, 33], "train": SIX_SCALES},
    "solov2_r101_vd_fpn_3x_coco": {
        "depth": 101, "variant": "d", "stages": [1, 2, 3], "tower_stages": [0, 1, 2, 3], "mask_dcn": True,
        "pretrained": PADDLE + "ResNet101_vd_pretrained.pdparams",
        "epochs": 36, "milestones": [24, 33], "warmup": 2000, "ema": True, "train": SIX_SCALES,
    },
    "solov2_r50_enhance_coco": {
        "variant": "d", "freeze_norm": False, "sync_norm": True, "stages": [1, 2, 3],
        "pretrained": PADDLE + "ResNet50_vd_ssld_v2_pretrained.pdparams", "multipliers": [0.05, 0.05, 0.1, 0.15],
        "tower": 256, "convolutions": 3, "kernel": 128, "tower_stages": [2], "drop_block": True, "mask_dcn": True,
        "epochs": 36, "milestones": [24, 33], "ema": True, "workers": 2, "run": "Solov2",
        "train": [DISTORT, CROP, six_sizes(352, 512, 852), FLIP], "test": one_size(512, 852),
    },
    # the authors
    "solov2_r50_fpn_8gpu_1x": {"milestones": [9, 11]},
    "solov2_r50_fpn_8gpu_3x": {},
    "solov2_r101_fpn_8gpu_3x": {"depth": 101, "pretrained": TORCHVISION + "resnet101-5d3b4d8f.pth"},
    "solov2_r101_dcn_fpn_8gpu_3x": {
        "depth": 101, "pretrained": TORCHVISION + "resnet101-5d3b4d8f.pth",
        "stages": [1, 2, 3], "tower_stages": [0, 1, 2, 3], "mask_dcn": True,
    },
    "solov2_x101_dcn_fpn_8gpu_3x": {
        "depth": 101, "groups": 64, "base_width": 4,
        "pretrained": "https://download.openmmlab.com/pretrain/third_party/resnext101_64x4d-ee2c6f71.pth",
        "stages": [1, 2, 3], "tower_stages": [0, 1, 2, 3], "mask_dcn": True,
    },
    "solov2_light_448_r18_fpn_8gpu_3x": {
        "depth": 18, "project_first": False, "pretrained": TORCHVISION + "resnet18-5c106cde.pth",
    },
    "solov2_light_448_r34_fpn_8gpu_3x": {
        "depth": 34, "project_first": False, "pretrained": TORCHVISION + "resnet34-333f7ec4.pth",
    },
    "solov2_light_448_r50_fpn_8gpu_3x": {},
    "solov2_light_512_dcn_r50_fpn_8gpu_3x": {
        "stages": [1, 2, 3], "version": 1, "convolutions": 3, "tower_stages": [2], "tower_version": 1,
        "ranges": LIGHT_512, "train": [six_sizes(352, 512, 852), FLIP], "test": one_size(512, 852),
    },
    # AdelaiDet
    "adelaidet_R50_3x": {"pretrained": MSRA + "R-50.pkl"},
    "adelaidet_R101_3x": {"depth": 101, "pretrained": MSRA + "R-101.pkl"},
}  # fmt: skip

USUAL = {
    "depth": 50, "variant": "b", "freeze_norm": True, "norm_eval": False, "sync_norm": False, "groups": 1,
    "base_width": 64, "project_first": True, "stages": [], "version": 2,
    "pretrained": PADDLE + "ResNet50_cos_pretrained.pdparams", "multipliers": [1, 1, 1, 1],
    "tower": 512, "convolutions": 4, "kernel": 256, "tower_stages": [], "tower_version": 2, "drop_block": False,
    "mask_dcn": False, "ranges": STANDARD, "epochs": 12, "milestones": [8, 11], "warmup": 1000, "start": 0,
    "uniform": False, "clip": None, "ema": False, "workers": 8, "log": 20, "grouped": False,
    "run": None, "train": ONE_SCALE, "test": one_size(800, 1333),
}  # fmt: skip
AUTHORS = USUAL | {
    "freeze_norm": False, "norm_eval": True, "pretrained": TORCHVISION + "resnet50-19c8e357.pth", "warmup": 500,
    "start": 0.01, "uniform": True, "clip": 35, "log": 50, "grouped": True,
}  # fmt: skip
AUTHORS_3X = AUTHORS | {"epochs": 36, "milestones": [27, 33], "train": SIX_SCALES}
AUTHORS_LIGHT = AUTHORS_3X | {
    "tower": 256, "convolutions": 2, "kernel": 128, "ranges": LIGHT_448,
    "train": [six_sizes(352, 512, 768), FLIP], "test": one_size(448, 768),
}  # fmt: skip
ADELAIDET = USUAL | {
    "variant": "a", "epochs": 37, "milestones": [29, 34], "start": 0.01, "grouped": True, "train": SIX_SCALES,
}  # fmt: skip


def common(name: str) -> dict[str, Any]:
    if name.endswith("_coco"):
        return USUAL
    if name.startswith("adelaidet"):
        return ADELAIDET
    if "light" in name:
        return AUTHORS_LIGHT
    return AUTHORS if name.endswith("1x") else AUTHORS_3X


def model(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_classes": 80,
        "backbone": {
            "kind": "resnet", "depth": row["depth"], "variant": row["variant"], "freeze_at": 0,
            "freeze_norm": row["freeze_norm"], "norm_eval": row["norm_eval"], "sync_norm": row["sync_norm"],
            "groups": row["groups"], "base_width": row["base_width"], "project_first": row["project_first"],
            "dcn_stages": row["stages"], "dcn_version": row["version"],
        },
        "fpn": {"kind": "fpn", "channels": 256, "extra_levels": 1},
        "mask_branch": {
            "mid_channels": 128, "out_channels": row["kernel"], "refinements": 0, "dcn": row["mask_dcn"], "norm": "gn",
        },
        "grid_head": {
            "grid_sizes": [40, 36, 24, 16, 12], "strides": [8, 8, 16, 32, 32], "channels": row["tower"],
            "depth": row["convolutions"], "kernel_channels": row["kernel"], "drop_block": row["drop_block"],
            "dcn_stages": row["tower_stages"], "dcn_version": row["tower_version"], "norm": "gn", "separable": False,
        },
        "position": "absolute",
    }  # fmt: skip


def source(kind: str, images: str, annotations: str) -> dict[str, Any]:
    return {
        "kind": kind, "dataset_dir": "dataset/coco", "image_dir": images, "anno_path": f"annotations/{annotations}",
        "allow_empty": False, "sample_num": -1,
    }  # fmt: skip


def data(row: dict[str, Any]) -> dict[str, Any]:
    reader = {
        "transforms": [row["test"]], "batch_size": 1, "shuffle": False, "drop_last": False, "group_by_size": False,
        "repeat_area": None,
    }  # fmt: skip
    train = {
        "transforms": row["train"], "batch_size": 2, "shuffle": True, "drop_last": True,
        "group_by_size": row["grouped"], "repeat_area": None,
    }  # fmt: skip
    return {
        "train": {"source": source("coco", "train2017", "instances_train2017.json"), "reader": train},
        "eval": {"source": source("coco", "val2017", "instances_val2017.json"), "reader": reader},
        "test": {"source": source("folder", "", "instances_val2017.json"), "reader": reader},
        "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "pad_stride": 32,
    }


def expected(name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "model": model(row),
        "assign": {"size_ranges": row["ranges"], "center_scale": 0.2},
        "loss": {"mask_weight": 3.0, "focal_gamma": 2.0, "focal_alpha": 0.25, "top_cells": 0},
        "decode": {
            "score_threshold": 0.1, "mask_threshold": 0.5, "pre_nms_top_n": 500, "post_nms_top_n": 100,
            "update_threshold": 0.05, "decay": "gaussian", "sigma": 2.0, "least_part": 0.0,
        },
        "optim": {
            "kind": "sgd", "base_lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4,
            "stage_lr_multipliers": row["multipliers"], "uniform": row["uniform"], "clip_norm": row["clip"],
            "clip_value": None,
            "schedule": {"kind": "piecewise", "milestones": row["milestones"], "factors": [0.1, 0.01]},
            "warmup": {
                "kind": "linear", "steps": row["warmup"], "epochs": None, "start_factor": row["start"], "power": 2.0,
            },
        },
        "train": {
            "epochs": row["epochs"], "seed": 0, "snapshot_epoch": 1, "log_every": row["log"], "save_dir": "output",
            "checkpoint_minutes": 10.0, "checkpoint_steps": None, "accumulate": 1, "run_name": row["run"],
            "init_weights": row["pretrained"], "weights": f"output/{row['run'] or name}/model_final", "amp": False,
            "amp_dtype": "auto", "ema": row["ema"], "ema_decay": 0.9998, "ema_decay_type": "threshold",
            "workers": row["workers"], "base_devices": 8, "freeze": [],
        },
        "data": data(row),
        "metric": "COCO",
    }  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_the_published_recipes(name: str) -> None:
    row = common(name)
    assert TABLE[name].keys() <= row.keys()
    config = load_config(f"configs/solov2/{name}.yml")
    assert config.model_dump(mode="json") == expected(name, row | TABLE[name])


def test_every_published_recipe_is_shipped() -> None:
    assert set(shipped_recipes()) == TABLE.keys() | {"nano", "solov2_nano_coco", "solov2_nano_nuclei"}


def test_the_small_recipe_has_the_shape_its_weights_need() -> None:
    config = load_config("nano")
    assert config.model.model_dump(mode="json") == {
        "num_classes": 80,
        "backbone": {"kind": "shufflenetv2", "width": 1.0, "freeze_at": -1, "freeze_norm": False},
        "fpn": {"kind": "ghost_pan", "channels": 96, "extra_levels": 1},
        "mask_branch": {"mid_channels": 64, "out_channels": 64, "refinements": 0, "dcn": False, "norm": "gn"},
        "grid_head": {
            "grid_sizes": [], "separable": True, "strides": [8, 16, 32, 64], "channels": 256, "depth": 2,
            "kernel_channels": 64, "drop_block": False, "dcn_stages": [], "dcn_version": 2, "norm": "gn",
        },
        "position": "relative",
    }  # fmt: skip
    assert config.assign.size_ranges == ((1, 64), (32, 128), (64, 256), (128, 2048))
    assert (config.optim.kind, config.optim.weight_decay) == ("adamw", 0.05)
    assert config.optim.schedule.model_dump() == {
        "kind": "cosine", "max_epochs": config.train.epochs, "min_lr_ratio": 0.0, "plateau_epochs": 0, "flat_epochs": 0,
    }  # fmt: skip
    assert (config.train.init_weights, config.train.base_devices, config.train.ema) == ("nanodet_plus_m", 1, True)


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


def test_described_keys_follow_the_neck() -> None:
    rows = {key: value for key, value, _ in describe(load("nano"))}
    assert (rows["SOLOv2.neck"], rows["GhostPAN.out_channel"]) == ("GhostPAN", 96)
    assert "FPN.out_channel" not in rows
    assert rows["SOLOv2Head.num_grids"] == "native"
    rows = {key: value for key, value, _ in describe(load("solov2_r50_fpn_1x_coco"))}
    assert (rows["SOLOv2.neck"], rows["FPN.out_channel"]) == ("FPN", 256)
    assert not any(key.startswith("GhostPAN.") for key in rows)


def test_a_description_spells_values_like_a_recipe() -> None:
    rows = {key: value for key, value, _ in describe(load("solov2_r50_fpn_1x_coco", ["ResNet.norm_type=sync_bn"]))}
    assert rows["ResNet.norm_type"] == "sync_bn"
    assert rows["SOLOv2.backbone"] == "ResNet"
    assert rows["OptimizerBuilder.optimizer.type"] == "Momentum"


def test_settings_from_one_shared_key_are_described_by_their_own() -> None:
    loaded = load("solov2_r50_fpn_1x_coco", ["norm_type=sync_bn"])  # its base states ResNet.norm_type: bn
    rows = {key: (value, origin) for key, value, origin in describe(loaded)}
    assert len(rows) == len(describe(loaded))
    assert rows["ResNet.norm_type"][0] == "bn"
    assert rows["SOLOv2Head.norm_type"] == rows["SOLOv2MaskHead.norm_type"] == ("sync_bn", "-o")
    assert "norm_type" not in rows


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys; from solov2.config import load_config; load_config('nano'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
