import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solov2 import ConfigError, Frame, Predictions, decode
from solov2.benchmarking.scene import THRESHOLD, PlantedNetwork, plant

HW = (256, 384)


def shapes(categories: int = 3, channels: int = 8, *, native: bool = False) -> Predictions:
    """What a small network's outputs look like for a picture of 256x384 pixels."""
    grids = [(32, 48), (16, 24)] if native else [(20, 20), (12, 12)]
    return Predictions(
        tuple(torch.empty((1, categories, *grid)) for grid in grids),
        tuple(torch.empty((1, channels, *grid)) for grid in grids),
        torch.empty((1, channels, HW[0] // 4, HW[1] // 4)),
        (8, 16),
        native,
    )


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_as_many_are_found(count: int, native: bool) -> None:
    planted = plant(shapes(native=native), count)
    (found,) = decode(planted, [Frame(HW, HW, HW)])
    assert (found.scores >= THRESHOLD).sum() == count
    if count:
        assert found.areas[:count].min() > 0
        assert len(set(map(tuple, found.boxes[:count].tolist()))) == count


def test_one_category_and_more_instances_than_quarters_of_cells() -> None:
    planted = plant(shapes(categories=1), 300)
    (found,) = decode(planted, [Frame(HW, HW, HW)], post_nms_top_n=1000)
    assert len(found) >= 200  # neighbouring cells of one category may be one peak, and large ellipses overlap


def test_the_same_seed_gives_the_same() -> None:
    first, again, other = (plant(shapes(), 5, seed) for seed in (1, 1, 2))
    assert torch.equal(first.kernels[0], again.kernels[0])
    assert not torch.equal(first.kernels[0], other.kernels[0])


@pytest.mark.parametrize("count", [-1, 545])
def test_too_many(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"^{count} instances: the network has 544 cells for this size; "):
        plant(shapes(), count)


def test_too_few_channels() -> None:
    with pytest.raises(ConfigError, match="the network has 4 mask features; planting instances needs 5 or more"):
        plant(shapes(channels=4), 1)


class Counting(nn.Module):
    """A network that says nothing, and counts how often."""

    runs = 0

    def forward(self, images: Tensor) -> Predictions:
        self.runs += 1
        like = shapes()
        batch = len(images)

        def zeros(x: Tensor) -> Tensor:
            return torch.zeros((batch, *x.shape[1:]))

        return Predictions(
            tuple(map(zeros, like.category_logits)), tuple(map(zeros, like.kernels)), zeros(like.mask_features), (8, 16)
        )


def test_the_network_runs_and_its_outputs_are_exchanged() -> None:
    inner = Counting()
    network = PlantedNetwork(inner, plant(shapes(), 7))
    predictions = network(torch.zeros(2, 3, *HW))
    assert inner.runs == 1
    found = decode(predictions, [Frame(HW, HW, HW)] * 2)
    assert [int((instances.scores >= THRESHOLD).sum()) for instances in found] == [7, 7]
    np.testing.assert_array_equal(found[0].boxes, found[1].boxes)
