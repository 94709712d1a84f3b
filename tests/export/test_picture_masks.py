"""Masks at the pictures' sizes: pixel for pixel what pasting gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from solov2.export.graph import ExportGraph, Rows
from solov2.export.on_torch import TorchSession
from solov2.export.options import ExportOptions
from solov2.export.picture_masks import PictureGraph, picture_masks
from solov2.export.writing import trace, write_torch
from solov2.paste import paste_mask
from solov2.structures import Frame
from tests.export.test_graph import OPTIONS
from tests.export.test_writing import Small, batch

GRID = (16, 24)
PADDED = (64, 96)

FRAMES = [
    Frame((64, 96), (64, 96), PADDED),  # nothing to resize
    Frame((50, 70), (60, 84), PADDED),
    Frame((333, 517), (61, 95), PADDED),  # enlarged, odd
    Frame((7, 5), (64, 46), PADDED),  # reduced
    Frame((1, 1), (64, 64), PADDED),
    Frame((200, 3), (64, 1), PADDED),  # as narrow as a picture gets
]


def rows(count: list[int], seed: int = 0) -> Rows:
    """Four masks a picture: soft shapes, everything, nothing, one cell of the grid."""
    probs = torch.zeros((len(count), 4, *GRID))
    coarse = torch.rand((len(count), 1, 4, 6), generator=torch.Generator().manual_seed(seed))
    probs[:, :1] = F.interpolate(coarse, GRID, mode="bilinear")
    probs[:, 1] = 0.9
    probs[:, 3, 5, 3] = 1
    nothing = torch.zeros(0)
    return Rows(torch.tensor(count), nothing, nothing, probs)


def pasted(probs: torch.Tensor, frame: Frame, threshold: float) -> np.ndarray:
    box, crop = paste_mask(probs, frame, threshold)
    mask = np.zeros(frame.original_hw, bool)
    x0, y0, x1, y1 = (int(side) for side in box)
    mask[y0:y1, x0:x1] = crop
    return mask


@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize("frames", [[frame] for frame in FRAMES] + [FRAMES[:3], FRAMES[::-1]])
def test_pixels_are_those_of_pasting(frames: list[Frame], threshold: float) -> None:
    given = rows([4] * len(frames))
    sizes, originals = (
        torch.tensor([getattr(frame, name) for frame in frames]) for name in ("resized_hw", "original_hw")
    )
    found = picture_masks(given, sizes, originals, PADDED, threshold)
    assert found.dtype == torch.bool
    assert found.shape == (len(frames), 4, *originals.amax(dim=0).tolist())
    for image, frame in enumerate(frames):
        height, width = frame.original_hw
        expected = np.stack([pasted(probs, frame, threshold) for probs in given.masks[image]])
        assert expected[1].all()
        assert (found[image, :, :height, :width].numpy() == expected).all()
        assert not found[image, :, height:].any()
        assert not found[image, :, :, width:].any()


@pytest.mark.parametrize(("count", "expected"), [([2, 1], 2), ([0, 3], 3), ([0, 0], 1)])
def test_as_many_masks_as_the_fullest_picture_has(count: list[int], expected: int) -> None:
    sizes = torch.tensor([[64, 96]] * 2)
    assert picture_masks(rows(count), sizes, sizes, PADDED, 0.5).shape == (2, expected, 64, 96)


@pytest.mark.slow
def test_one_trace_serves_pictures_of_every_size(tmp_path: Path) -> None:
    inner = ExportGraph(Small().eval(), [0.5] * 3, [0.3] * 3, OPTIONS)  # type: ignore[arg-type]
    graph = PictureGraph(inner).eval().requires_grad_(False)
    options = ExportOptions("torch", masks="picture")
    write_torch(trace(graph, options), tmp_path / "small.pt2", {}, options)
    session = TorchSession(tmp_path / "small.pt2")
    for size in ((1, 64, 96), (3, 96, 64)):
        images, sizes = batch(*size)
        for original in ((50, 80), (1, 3), (300, 1)):
            originals = torch.tensor([original] * size[0]) + torch.arange(size[0])[:, None]
            with torch.inference_mode():
                *expected, masks = graph(images, sizes, originals)
            *found, theirs = session(images.numpy(), sizes.numpy(), originals.numpy())
            assert (theirs == masks.numpy()).all()
            assert masks.any()
            for ours, other in zip(expected, found, strict=True):
                torch.testing.assert_close(ours, torch.from_numpy(other), rtol=0, atol=1e-4)
