"""Published architectures, small ones of their kind with random weights: the file finds what PyTorch finds."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from solov2 import Config, build_model, load_config
from solov2.build import decode_options
from solov2.data.collate import normalize
from solov2.decoding import decode
from solov2.export.graph import ExportGraph
from solov2.export.options import ExportOptions
from solov2.export.parity import FLOAT32, Parity
from solov2.export.writing import trace, write_onnx
from solov2.model.solov2 import SOLOv2
from solov2.runtime.exported import ExportedModel
from solov2.runtime.interface import Session
from solov2.runtime.on_onnxruntime import OnnxRuntimeSession
from solov2.runtime.on_openvino import OpenVinoSession
from solov2.structures import HW, Batch, Frame
from tests.conftest import noise_picture

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="solov2[export]"
)

NARROW = (
    "ResNet.depth=18",
    "FPN.out_channel=32",
    "SOLOv2Head.in_channels=32",
    "SOLOv2Head.seg_feat_channels=64",
    "SOLOv2Head.kernel_out_channels=32",
    "SOLOv2Head.stacked_convs=2",
    "SOLOv2MaskHead.in_channels=32",
    "SOLOv2MaskHead.mid_channels=64",
    "SOLOv2MaskHead.out_channels=32",
    "num_classes=4",
)

RECIPES = {
    "r50_fpn": ("solov2_r50_fpn_1x_coco", ()),
    "r50_enhance": ("solov2_r50_enhance_coco", ("ResNet.dcn_v2_stages=[3]", "SOLOv2Head.dcn_v2_stages=[1]")),
}

PICTURES: Sequence[Sequence[tuple[int, int]]] = (
    ((160, 192),),
    ((70, 96), (96, 65), (90, 90)),
    ((33, 51),),
    ((32, 32),),
)
"""Batches of sizes; at 32x32 the coarsest maps are single pixels."""


def network(recipe: str, changes: Sequence[str]) -> tuple[Config, SOLOv2, ExportGraph]:
    """A recipe, a network that finds things in noise, and its graph."""
    config = load_config(recipe, [*NARROW, *changes])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(config)
        for name, parameter in model.named_parameters():
            if name.endswith("offset.weight"):
                torch.nn.init.normal_(parameter, std=0.05)
            elif parameter.dim() == 4:
                torch.nn.init.kaiming_normal_(parameter)
            elif name == "grid_head.category_output.bias":
                torch.nn.init.constant_(parameter, -3.6)  # some hundred cells exceed the score threshold
    data = config.data.normalize
    model.eval().requires_grad_(False)
    return config, model, ExportGraph(model, data.mean, data.std, decode_options(config)).eval().requires_grad_(False)


def batch_of(sizes: Sequence[tuple[int, int]]) -> Batch:
    hw = tuple(-(-max(size[axis] for size in sizes) // 32) * 32 for axis in (0, 1))
    frames = tuple(Frame(size, size, (hw[0], hw[1])) for size in sizes)
    images = torch.zeros((len(sizes), 3, *hw), dtype=torch.uint8)
    for image, (height, width) in zip(images, sizes, strict=True):
        picture = noise_picture(height, width, seed=height)
        image[:, :height, :width] = torch.from_numpy(picture).permute(2, 0, 1)
    images[-1] *= len(sizes) == 1  # the last of several is black
    return Batch(images, frames, tuple(range(len(sizes))), ("",) * len(sizes))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("size", [None, (160, 192)])
@pytest.mark.parametrize("case", RECIPES)
def test_the_file_finds_what_pytorch_finds(case: str, size: HW | None, tmp_path: Path) -> None:
    config, model, graph = network(*RECIPES[case])
    path, options = tmp_path / "model.onnx", ExportOptions(size=size)
    write_onnx(trace(graph, options), path, {}, options)
    sessions: list[Session] = [OnnxRuntimeSession(path, "cpu")]
    if importlib.util.find_spec("openvino"):
        sessions.append(OpenVinoSession(path, "cpu"))
    for session in sessions:
        assert_finds_the_same(ExportedModel(path, "onnxruntime", session, {}, size), config, model, graph)


def assert_finds_the_same(exported: ExportedModel, config: Config, model: SOLOv2, graph: ExportGraph) -> None:
    parity, options, data = Parity(), graph.options, config.data.normalize
    for sizes in PICTURES:
        batch = exported.padded(batch_of(sizes))
        with torch.inference_mode():
            images = normalize(batch.images, batch.frames, data.mean, data.std)
            ours = decode(model(images), batch.frames, **options)
        for one, other in zip(ours, exported.run(batch, options["mask_threshold"]), strict=True):
            parity.add(one, other, options["update_threshold"], options["post_nms_top_n"], FLOAT32.score_difference)
    assert parity.pictures == 6
    assert parity.matched >= 20
    assert parity.mean_iou > 0.9995  # random weights: masks with flat places at the very threshold
    assert parity.unmatched <= 0.02 * parity.matched
    assert np.quantile(parity._ious, 0.05) > 0.999
