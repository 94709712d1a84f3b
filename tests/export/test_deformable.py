"""Deformable convolutions in exported graphs: versions 1 and 2, every geometry that the published models have."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from solov2.export.graph import ExportGraph, Rows
from solov2.export.on_torch import TorchSession
from solov2.export.options import ExportOptions
from solov2.export.writing import trace, write_onnx, write_torch
from solov2.model.deform import DeformConv2d
from solov2.model.layers import append_coords, resize
from solov2.runtime.interface import Session
from solov2.runtime.on_onnxruntime import OnnxRuntimeSession
from solov2.runtime.on_openvino import OpenVinoSession
from solov2.structures import Predictions
from tests.export.test_graph import OPTIONS
from tests.export.test_writing import Small, batch

SIZES = [(1, 32, 32), (3, 96, 64), (2, 64, 160)]
"""Batch, height, width; at 32x32 the coarsest map is a single pixel."""

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="solov2[export]"
)


class Deforming(Small):
    """Three by three with stride 1 and 2, one by one, groups, with and without factors and bias."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.fine = nn.Sequential(
                DeformConv2d(6, 8, 3, bias=True), nn.Tanh(), DeformConv2d(8, 8, 3, groups=2, modulated=False), nn.Tanh()
            )
            self.mix = DeformConv2d(8, 6, 1, bias=True)
            self.halve = DeformConv2d(6, 6, 3, stride=2)
            self.coarse = DeformConv2d(8, 8, 3, bias=True)
            for module in self.modules():
                if isinstance(module, DeformConv2d):  # so that samples lie anywhere, far outside the map too
                    nn.init.normal_(module.offset.weight, std=0.2)
                    nn.init.normal_(module.offset.bias, std=2.0)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Predictions:
        features = self.mix(self.fine(self.features(images)))
        levels = [append_coords(self.halve(features)), self.coarse(append_coords(features[:, :, ::8, ::8]))]
        levels[1] = resize(levels[1], (6, 5))
        return Predictions(
            tuple(self.scores(x) for x in levels), tuple(2 * self.kernels(x) for x in levels), features, (8, 32)
        )


@pytest.fixture(scope="module")
def graph() -> ExportGraph:
    return ExportGraph(Deforming().eval(), [0.5] * 3, [0.3] * 3, OPTIONS).eval().requires_grad_(False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def program(graph: ExportGraph) -> ExportedProgram:
    return trace(graph, ExportOptions())  # the same for every format


def assert_serves_every_size(graph: ExportGraph, session: Session) -> None:
    """Eager PyTorch takes another form of the convolution than the file."""
    for size in SIZES:
        images, sizes = batch(*size)
        with torch.inference_mode():
            expected = Rows(*graph(images, sizes))
        counts, scores, labels, masks = (np.asarray(x) for x in session(images.numpy(), sizes.numpy()))
        assert counts.tolist() == expected.counts.tolist()
        assert (counts > 0).all()
        # A pixel at the very threshold changes a score, and may make two rows change places: hence not all of them.
        off = np.abs(scores - expected.scores.numpy())
        assert off.max() < 1e-2
        assert (off > 1e-5).mean() < 0.1
        assert (labels != expected.labels.numpy()).mean() < 0.1
        assert np.abs(masks - expected.masks.numpy()).mean() < 1e-2


@pytest.mark.slow
def test_torch(graph: ExportGraph, program: ExportedProgram, tmp_path: Path) -> None:
    write_torch(program, tmp_path / "small.pt2", {}, ExportOptions("torch"))
    assert_serves_every_size(graph, TorchSession(tmp_path / "small.pt2"))


@needs_onnx
@pytest.mark.slow
def test_onnx(graph: ExportGraph, program: ExportedProgram, tmp_path: Path) -> None:
    """ONNX Runtime and, where it is installed, OpenVINO."""
    path = tmp_path / "small.onnx"
    write_onnx(program, path, {}, ExportOptions())
    assert_serves_every_size(graph, OnnxRuntimeSession(path, "cpu"))
    if importlib.util.find_spec("openvino"):
        assert_serves_every_size(graph, OpenVinoSession(path, "cpu"))
