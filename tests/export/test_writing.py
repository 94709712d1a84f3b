"""The graph around a network of three convolutions: traced once, right at every size."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solov2.errors import MissingDependencyError
from solov2.export.graph import ExportGraph, Rows
from solov2.export.on_torch import TorchSession
from solov2.export.options import ExportOptions
from solov2.export.writing import check_packages, trace, write_onnx, write_torch
from solov2.model.layers import append_coords, resize
from solov2.structures import Predictions
from tests.export.test_graph import OPTIONS

SIZES = [(1, 64, 96), (3, 96, 64), (2, 32, 32), (1, 192, 160)]
"""Batch, height, width; at 192x160 the map that becomes a grid has the grid's size already."""


class Small(nn.Module):
    """Coordinates and a resize to a 6×5 grid, as in the real heads, and a level that follows the picture's size."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Conv2d(3, 6, 4, 4)
            self.kernels = nn.Conv2d(8, 6, 3, padding=1)
            self.scores = nn.Conv2d(8, 2, 3, padding=1)
            nn.init.normal_(self.kernels.weight, std=0.5)
            nn.init.normal_(self.scores.weight, std=0.5)

    def forward(self, images: Tensor) -> Predictions:
        features = self.features(images)
        levels = [append_coords(nn.functional.avg_pool2d(features, 2)), append_coords(features[:, :, ::8, ::8])]
        levels[1] = resize(levels[1], (6, 5))
        return Predictions(
            tuple(self.scores(x) for x in levels), tuple(self.kernels(x) for x in levels), features, (8, 32)
        )


@pytest.fixture(scope="module")
def graph() -> ExportGraph:
    return ExportGraph(Small().eval(), [0.5] * 3, [0.3] * 3, OPTIONS).eval().requires_grad_(False)  # type: ignore[arg-type]


def batch(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)
    return images, torch.tensor([[height - 3 * row, width - row] for row in range(count)])


def assert_same(ours: Rows, theirs: list[Tensor]) -> None:
    assert (ours.counts > 0).all()
    assert ours.counts.tolist() == theirs[0].tolist()
    assert ours.labels.tolist() == theirs[2].tolist()
    torch.testing.assert_close(ours.scores, theirs[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.masks, theirs[3], rtol=0, atol=1e-4)


def test_one_trace_serves_every_size(graph: ExportGraph, tmp_path: Path) -> None:
    write_torch(trace(graph, ExportOptions("torch")), tmp_path / "small.pt2", {"solov2": "{}"}, ExportOptions("torch"))
    session = TorchSession(tmp_path / "small.pt2")
    for size in SIZES:
        images, sizes = batch(*size)
        with torch.inference_mode():
            expected = Rows(*graph(images, sizes))
        assert_same(expected, [torch.from_numpy(x) for x in session(images.numpy(), sizes.numpy())])


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("onnxscript"), reason="solov2[export]")
def test_one_onnx_file_serves_every_size(graph: ExportGraph, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    write_onnx(trace(graph, ExportOptions()), tmp_path / "small.onnx", {"solov2": "{}"}, ExportOptions())
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    assert session.get_modelmeta().custom_metadata_map["solov2"] == "{}"
    for size in SIZES:
        images, sizes = batch(*size)
        with torch.inference_mode():
            expected = Rows(*graph(images, sizes))
        found = session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()})
        assert_same(expected, [torch.from_numpy(np.asarray(x)) for x in found])


def test_what_a_trace_would_fix_is_refused() -> None:
    class Fixes(Small):
        def forward(self, images: Tensor) -> Predictions:
            found = super().forward(images)
            across = torch.linspace(-1, 1, found.mask_features.shape[-1])
            return replace(found, mask_features=found.mask_features + across)

    graph = ExportGraph(Fixes().eval(), [0.5] * 3, [0.3] * 3, OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="Eq"):
        trace(graph, ExportOptions())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_coordinates_are_the_same_in_an_exported_graph(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros((1, 1, 2, size))
    expected = append_coords(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(append_coords(x), expected, rtol=0, atol=2e-7)


def test_packages_of_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages("torch")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="exporting to openvino needs the package 'onnx'"):
        check_packages("openvino")
