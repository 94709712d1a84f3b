"""Runs a network from ncnn's text form: another implementation to compare with, straight from the layer list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

GRAPH = Path(__file__).parent / "nanodet_plus_m.graph.txt"
"""Of NanoDet-Plus-m; blobs 1441, 1466, 1491 and 1516 are the outputs of its four levels, before the sigmoid."""

OUTPUTS = ("1441", "1466", "1491", "1516")

Arrays = Mapping[str, npt.NDArray[np.float32]]


def layers() -> list[tuple[str, str, list[str], list[str], dict[str, str]]]:
    """Type, name, inputs, outputs and parameters of every layer."""
    found = []
    for line in GRAPH.read_text(encoding="utf-8").splitlines()[2:]:
        kind, name, inputs, outputs, *rest = line.split()
        first, second = int(inputs), int(inputs) + int(outputs)
        parameters = dict(item.split("=", 1) for item in rest[second:])
        found.append((kind, name, rest[:first], rest[first:second], parameters))
    return found


def random_arrays(seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of every convolution that keep the size of what passes."""
    rng, arrays = np.random.default_rng(seed), {}
    for kind, name, _, _, p in layers():
        if not kind.startswith("Convolution"):
            continue
        channels, side, groups = int(p["0"]), int(p["1"]), int(p.get("7", 1))
        shape = (channels, int(p["6"]) // (channels * side * side), side, side)
        assert groups in (1, channels)
        scale = (1.5 / (shape[1] * side * side)) ** 0.5
        arrays[f"{name}.weight"] = (rng.standard_normal(shape) * scale).astype(np.float32)
        arrays[f"{name}.bias"] = (rng.standard_normal(channels) * 0.1).astype(np.float32)
    return arrays


@torch.no_grad()
def run(arrays: Arrays, picture: Tensor) -> list[Tensor]:
    """The four levels' (B, 112, h, w): category logits, then box distances."""
    blobs = {"data": picture}
    for kind, name, inputs, outputs, p in layers():
        if kind == "Input" or not all(blob in blobs for blob in inputs):
            continue
        x = [blobs[blob] for blob in inputs]
        if kind.startswith("Convolution"):
            weight, bias = (torch.from_numpy(arrays[f"{name}.{part}"]) for part in ("weight", "bias"))
            out = F.conv2d(x[0], weight, bias, int(p.get("3", 1)), int(p.get("4", 0)), groups=int(p.get("7", 1)))
            result = F.leaky_relu(out, float(p["-23310"].split(",")[1])) if p.get("9") == "2" else out
        elif kind == "Pooling":
            result = F.max_pool2d(x[0], int(p["1"]), int(p["2"]), int(p["3"]))
        elif kind == "Concat":
            result = torch.cat(x, dim=1)
        elif kind == "ShuffleChannel":
            batch, channels, height, width = x[0].shape
            result = x[0].reshape(batch, int(p["0"]), channels // int(p["0"]), height, width)
            result = result.transpose(1, 2).reshape(x[0].shape)
        elif kind == "Crop":
            first, last = (int(p[key].split(",")[1]) for key in ("-23309", "-23310"))
            result = x[0][:, first:last]
        elif kind == "Interp":
            result = F.interpolate(x[0], scale_factor=float(p["1"]), mode="bilinear", align_corners=False)
        elif kind == "BinaryOp":
            result = x[0] + x[1]
        elif kind == "Split":
            result = x[0]
        else:  # what comes after the outputs: sigmoid and reshaping
            continue
        blobs |= dict.fromkeys(outputs, result)
    return [blobs[name] for name in OUTPUTS]
