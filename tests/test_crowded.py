"""Five hundred instances in one picture: assigned, trained on, decoded, drawn and written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from solov2.build import build_loss
from solov2.config import load_config
from solov2.decoding import decode
from solov2.formats import to_coco_results
from solov2.structures import Frame, Instances, Predictions, Targets
from solov2.visualize import draw_instances

COUNT = 500
SIDE = 512
PER_ROW = 23
CELL = SIDE // PER_ROW


@pytest.fixture(scope="module")
def masks() -> Tensor:
    """Squares of 16 pixels on a lattice, on the mask grid: (500, 128, 128)."""
    masks = torch.zeros((COUNT, SIDE // 4, SIDE // 4), dtype=torch.uint8)
    for number in range(COUNT):
        y, x = (CELL * index // 4 for index in divmod(number, PER_ROW))
        masks[number, y : y + 4, x : x + 4] = 1
    return masks


def test_training(masks: Tensor) -> None:
    corners = torch.tensor([[float(m.nonzero()[0][1]), float(m.nonzero()[0][0])] for m in masks]).double() * 4
    targets = Targets(
        torch.zeros(COUNT, dtype=torch.int64), torch.cat([corners, corners + 16], 1), corners.flip(1) + 7.5, masks
    )
    config = load_config("solov2_nano_nuclei", ["SOLOv2Loss.top_cells=0"])
    strides = config.model.grid_head.strides
    grids = [SIDE // stride for stride in strides]
    predictions = Predictions(
        tuple(torch.zeros((1, 1, s, s), requires_grad=True) for s in grids),
        tuple(torch.zeros((1, 64, s, s), requires_grad=True) for s in grids),
        torch.randn((1, 64, SIDE // 4, SIDE // 4), generator=torch.manual_seed(0)).requires_grad_(),
        strides,
    )
    losses = build_loss(config)(predictions, [targets])
    torch.stack(list(losses.values())).sum().backward()
    trained = predictions.kernels[0].grad
    assert trained is not None
    assert int((trained.abs().sum(dim=1) > 0).sum()) >= 0.9 * COUNT  # hardly any instance loses its cells to another


def test_decoding_and_output(masks: Tensor) -> None:
    kernels = torch.zeros((COUNT, PER_ROW * PER_ROW))
    kernels[torch.arange(COUNT), torch.arange(COUNT)] = 1
    logits = torch.full((PER_ROW * PER_ROW,), -9.0)
    logits[:COUNT] = 3.0  # equal scores: points-NMS keeps them all
    predictions = Predictions(
        (logits.reshape(1, 1, PER_ROW, PER_ROW),),
        (kernels.reshape(1, COUNT, PER_ROW, PER_ROW),),
        (masks.float() * 20 - 10)[None],
        (8,),
    )
    frame = Frame((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE))
    found: Instances = decode(predictions, [frame], pre_nms_top_n=1500, post_nms_top_n=COUNT)[0]
    assert len(found) == COUNT
    assert len({tuple(box) for box in found.boxes.tolist()}) == COUNT
    assert len(to_coco_results(found, 1)) == COUNT
    assert draw_instances(np.zeros((SIDE, SIDE, 3), np.uint8), found).any()
