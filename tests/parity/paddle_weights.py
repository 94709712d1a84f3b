"""Rebuilds the weights behind the frozen numbers, straight into our network.

PaddleDetection's parameter names are derived from ours, so the map is tested by the numbers it gives.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from solov2.model.fpn import FPN
from solov2.model.grid_head import GridHead
from solov2.model.mask_branch import MaskBranch
from solov2.model.resnet import ResNet
from solov2.model.solov2 import SOLOv2

FOLDER = Path(__file__).parent
RULES = (
    (r"^backbone\.stem\.0\.", "backbone.conv1.conv1."),
    (r"^backbone\.stages\.(\d)\.(\d+)\.shortcut\.1\.", lambda m: f"backbone.{_block(m)}.short."),
    (r"^backbone\.stages\.(\d)\.(\d+)\.conv(\d)\.", lambda m: f"backbone.{_block(m)}.branch2{'_abc'[int(m[3])]}."),
    (r"^fpn\.laterals\.3\.", "neck.fpn_inner_res5_sum."),
    (r"^fpn\.laterals\.(\d)\.", lambda m: f"neck.fpn_inner_res{int(m[1]) + 2}_sum_lateral."),
    (r"^fpn\.outputs\.(\d)\.", lambda m: f"neck.fpn_res{int(m[1]) + 2}_sum."),
    (r"^grid_head\.(kernel|category)_tower\.(\d)\.", lambda m: f"{HEAD}{SHORT[m[1]]}_convs.{m[2]}."),
    (r"^grid_head\.(kernel|category)_output\.", lambda m: f"{HEAD}solo_{SHORT[m[1]]}."),
    (
        r"^mask_branch\.levels\.(\d)\.(\d)\.",
        r"mask_head.conv_pre_feat\1.mask_feat_head.convs_all_levels.\1.conv\2.",
    ),
    (r"^mask_branch\.output\.", "mask_head.mask_feat_head.conv_pred.0."),
    (r"\.running_mean$", "._mean"),
    (r"\.running_var$", "._variance"),
)
HEAD = "solov2_head.bbox_head."
SHORT = {"kernel": "kernel", "category": "cate"}


def _block(match: re.Match[str]) -> str:
    stage = int(match[1]) + 2
    return f"res{stage}.res{stage}{chr(ord('a') + int(match[2]))}"


def paddle_name(name: str) -> str:
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)  # type: ignore[arg-type]
    return name


def seeded(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = rng.standard_normal
    if len(shape) == 4:
        scale = 0.02 if "solo_cate" in name else float(np.sqrt(2.0 / np.prod(shape[1:])))
        return normal(shape) * (scale / np.sqrt(2.0) if name.startswith("neck") else scale)
    if name.endswith("norm.weight"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith("norm.bias"):
        return normal(shape) * 0.1
    return -4.595 + normal(shape) * 0.1 if "solo_cate" in name else normal(shape) * 0.05


def load_settings(data: Any) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(bytes(data["settings_json"]))
    return settings


def r50_fpn() -> SOLOv2:
    """The R50-FPN network of the frozen numbers, with their weights."""
    backbone = ResNet(50)
    network = SOLOv2(backbone, FPN(backbone.channels), MaskBranch(), GridHead(80))
    load(network, np.load(FOLDER / "solov2_r50_fpn.npz"))
    return network.eval()


def load(network: nn.Module, data: Any) -> None:
    settings = load_settings(data)
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        theirs = paddle_name(name)
        stored = f"weight/{theirs}"
        array = data[stored] if stored in data else seeded(theirs, tuple(tensor.shape), settings["seed"])
        array = array.astype(np.float32)
        if theirs.endswith("solo_kernel.weight"):
            array = array * np.float32(settings["kernel_weight_scale"])
        state[name] = torch.from_numpy(array)
    network.load_state_dict(state)
