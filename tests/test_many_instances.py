"""Very many instances, and very large pictures: they work, and memory follows what is kept."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from solov2.benchmarking.machine import peak_bytes
from solov2.decoding import decode
from solov2.formats import encode_rle
from solov2.structures import Frame, Predictions

SIDE = 64
"""Cells of the only level, and of the mask grid, in each direction."""


def lattice(count: int, cells: int = 2) -> Predictions:
    """Category scores that fall from cell to cell; cell i sees a square of ``cells`` cells, the i-th of a lattice."""
    per_row = SIDE // cells
    squares = torch.full((per_row * per_row, SIDE, SIDE), -10.0)
    for number in range(per_row * per_row):
        y, x = (cells * index for index in divmod(number, per_row))
        squares[number, y : y + cells, x : x + cells] = 10.0
    logits = torch.full((1, 1, SIDE * SIDE), -9.0)
    logits[0, 0, :count] = torch.linspace(4.0, 1.0, count)
    # Descending along rows, cells are no peaks among their neighbours: a category each, in turns, makes them so.
    spread = torch.full((1, 4, SIDE * SIDE), -9.0)
    index = torch.arange(SIDE * SIDE)
    which = index % SIDE % 2 + 2 * (index // SIDE % 2)
    spread[0, which, index] = logits[0, 0]
    kernels = torch.zeros((1, per_row * per_row, SIDE * SIDE))
    kernels[0, index % (per_row * per_row), index] = 1.0
    return Predictions(
        (spread.reshape(1, 4, SIDE, SIDE),),
        (kernels.reshape(1, -1, SIDE, SIDE),),
        squares[None],
        (1,),
    )


def test_two_thousand_candidates_and_a_thousand_instances() -> None:
    frame = Frame((300, 280), (4 * SIDE, 4 * SIDE), (4 * SIDE, 4 * SIDE))
    (found,) = decode(lattice(2000), [frame], pre_nms_top_n=2000, post_nms_top_n=1000)
    assert len(found) == 1000
    assert (found.scores[:-1] >= found.scores[1:]).all()
    assert found.areas.min() > 0
    assert len(set(map(tuple, found.boxes.tolist()))) == 1000  # the first of each square, which its double scores below
    rles = encode_rle(found)
    assert len({rle["counts"] for rle in rles}) == 1000


def blobs(count: int, hw: tuple[int, int]) -> Tensor:
    """Ellipses all over the mask grid, kernels of 1, u, v, u², v²: (N, 5)."""
    generator = torch.Generator().manual_seed(0)
    cx, cy = torch.rand(2, count, generator=generator)
    rx, ry = 0.02 + 0.13 * torch.rand(2, count, generator=generator)
    a, b = 6 / rx**2, 6 / ry**2
    return torch.stack([6 - a * cx**2 - b * cy**2, 2 * a * cx, 2 * b * cy, -a, -b], dim=1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_a_hundred_instances_in_a_picture_of_4k_take_less_than_a_gigabyte() -> None:
    frame = Frame((2160, 3840), (750, 1333), (768, 1344))
    height, width = 192, 336
    u, v = (torch.arange(width) + 0.5) / width, ((torch.arange(height) + 0.5) / height)[:, None]
    one = torch.ones(height, width)
    features = torch.stack([one, one * u, one * v, one * u**2, one * v**2])
    kernels = torch.zeros(5, 100, 100)
    kernels[:, ::10, ::10] = blobs(100, (height, width)).T.reshape(5, 10, 10)
    logits = torch.full((100, 100, 100), -9.0)
    rows, columns = (10 * index for index in (torch.arange(100) // 10, torch.arange(100) % 10))
    logits[torch.arange(100), rows, columns] = 3.0  # a category each: Matrix NMS lowers none
    predictions = Predictions((logits[None],), (kernels[None],), features[None], (8,))
    found = []
    peak = peak_bytes(lambda: found.extend(decode(predictions, [frame])), torch.device("cpu"))
    assert len(found[0]) == 100
    assert found[0].areas.sum() > 10 * 2160 * 3840 * 0.05
    assert peak is not None
    assert peak < 1 << 30
