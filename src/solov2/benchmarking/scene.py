"""Planted instances: a network with random weights finds nothing, and decoding nothing takes no time.

So the network is run as it is, and what it says is exchanged for tensors of the same shapes in which a known number
of objects is found: ellipses of sizes between 2 and 30 % of the shorter side, each seen by several cells, of which
Matrix NMS leaves one in front.

Letters: B images, C categories, E mask-feature channels, N objects.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from solov2.errors import ConfigError
from solov2.model.ellipse import UNIT
from solov2.structures import MASK_STRIDE, Predictions

CELLS_PER_OBJECT = 4
"""Cells that see an object, where there are enough cells."""

FIRST_LOGIT, OTHER_LOGIT, NO_LOGIT = 3.0, -1.5, -8.0
"""Category scores 0.95 for the cell that sees an object best, 0.18 for the others, 0.0003 for nothing."""

THRESHOLD = 0.3
"""Score that divides the objects, though they may overlap others, from what the other cells see."""

TERMS = 5
"""Channels that make an ellipse: 1, u, v, u², v²."""

RADII = (0.02, 0.3)
LEAST_AREA = 4
"""Of an ellipse, in units of the finest stride: decoding drops masks with fewer pixels than one."""

SPREAD = (0.7548776662, 0.5698402910)
"""Multiples of these, without their whole parts, are spread over a square evenly (Roberts, "The Unreasonable
Effectiveness of Quasirandom Sequences"): hardly any two objects are at one place."""

STEEPNESS = 6.0
NOISE = 0.05
"""What the other channels add: edges are not quite ellipses."""

TINY = 1e-30
"""Ties the planted tensors to the network's own without changing them, so that no run time leaves the network out."""


class PlantedNetwork(nn.Module):
    """A network whose outputs are exchanged for planted ones; inputs must have the size that these are for.

    Args:
        network: of pictures (B, 3, H, W).
        planted: for one picture, as :func:`plant` makes them.
    """

    def __init__(self, network: nn.Module, planted: Predictions) -> None:
        super().__init__()
        self.network = network
        self.strides, self.native, self.levels = planted.strides, planted.native, len(planted.kernels)
        for level, (logits, kernels) in enumerate(zip(planted.category_logits, planted.kernels, strict=True)):
            self.register_buffer(f"logits{level}", logits)
            self.register_buffer(f"kernels{level}", kernels)
        for level, ellipses in enumerate(planted.ellipses):
            self.register_buffer(f"ellipses{level}", ellipses)
        self.relative = bool(planted.ellipses)
        self.register_buffer("mask_features", planted.mask_features)

    def forward(self, images: Tensor) -> Predictions:
        """As the network, which does all its work."""
        said: Predictions = self.network(images)
        outputs = (*said.category_logits, *said.kernels, said.mask_features)
        tie = torch.stack([output[:, :1, :1, :1].float() for output in outputs]).sum(dim=0) * TINY  # (B, 1, 1, 1)
        return Predictions(
            tuple(self.get_buffer(f"logits{level}") + tie for level in range(self.levels)),
            tuple(self.get_buffer(f"kernels{level}") + tie for level in range(self.levels)),
            self.get_buffer("mask_features").expand(images.shape[0], -1, -1, -1),
            self.strides,
            self.native,
            tuple(self.get_buffer(f"ellipses{level}") + tie for level in range(self.levels) if self.relative),
        )


def plant(like: Predictions, count: int, seed: int = 0) -> Predictions:
    """Predictions for one picture, in which so many objects are found.

    Args:
        like: what the network says about a picture of this size; only its shapes count.
        count: objects N.
        seed: of their places.

    Raises:
        ConfigError: if the grids have too few cells for so many objects, or the kernels too few entries.
    """
    rng = np.random.default_rng(seed)
    channels, height, width = like.mask_features.shape[1:]
    places = [level.shape[1:] for level in like.category_logits]
    total = sum(rows * columns for _, rows, columns in places)
    if not 0 <= count <= total:
        raise ConfigError(f"{count} instances: the network has {total} cells for this size; give at most as many")
    if channels < TERMS:
        raise ConfigError(f"the network has {channels} mask features; planting instances needs {TERMS} or more")
    per_object = min(CELLS_PER_OBJECT, total // max(count, 1))
    # Fine levels come first: sorted, they get the small objects.
    cells = np.sort(rng.permutation(total)[: count * per_object].reshape(per_object, count))
    logits = np.full((total, places[0][0]), NO_LOGIT, np.float32)
    kernels, own = np.zeros((total, channels), np.float32), np.zeros((total, TERMS), np.float32)
    least = np.sqrt(LEAST_AREA * min(like.strides) / np.pi) / width
    labels, ellipses = rng.integers(0, places[0][0], count), _ellipses(rng, count, height / width, least)
    for number, mine in enumerate(cells):
        logits[mine, labels] = FIRST_LOGIT if number == 0 else OTHER_LOGIT
        kernels[mine, TERMS:] = rng.normal(0, NOISE, (count, channels - TERMS))
        kernels[mine, :TERMS] = _coefficients(ellipses)
        own[mine] = _in_units(ellipses, width)
    features = _features(rng, channels, height, width)
    if like.ellipses:  # decoding takes them from there, and leaves out the last channels
        kernels, features = np.roll(kernels, -TERMS, axis=1), features.roll(-TERMS, 0)
    return Predictions(
        _levels(logits, like.category_logits),
        _levels(kernels, like.kernels),
        features[None],
        like.strides,
        like.native,
        _levels(own, like.ellipses) if like.ellipses else (),
    )


def _ellipses(rng: np.random.Generator, count: int, aspect: float, least: float) -> npt.NDArray[np.float64]:
    """Centres x, y, falls a, b along them and heights, small ellipses first; x is 0..1, y 0..aspect; (N, 5)."""
    low, high = (max(radius * min(aspect, 1.0), least) for radius in RADII)
    size = np.sort(np.exp(rng.uniform(np.log(low), np.log(high), count)))
    stretch = np.exp(rng.uniform(-0.3, 0.3, count))
    rx, ry = size * stretch, size / stretch
    places = rng.uniform(0, 1, 2)[:, None] + np.array(SPREAD)[:, None] * np.arange(count)
    cx, cy = 0.05 + 0.9 * (places % 1)
    cy *= aspect
    return np.stack([cx, cy, STEEPNESS / rx**2, STEEPNESS / ry**2, np.full(count, STEEPNESS)], axis=1)


def _coefficients(ellipses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of 1, u, v, u², v²: top - a (u - cx)² - b (v - cy)²; (N, 5)."""
    cx, cy, a, b, top = ellipses.T
    return np.stack([top - a * cx**2 - b * cy**2, 2 * a * cx, 2 * b * cy, -a, -b], axis=1)


def _in_units(ellipses: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """As :func:`solov2.model.ellipse.ellipses_of` gives them; (N, 5)."""
    side = width * MASK_STRIDE / UNIT
    return ellipses * (side, side, side**-2, side**-2, 1)


def _features(rng: np.random.Generator, channels: int, height: int, width: int) -> Tensor:
    u, v = (np.arange(width) + 0.5) / width, (np.arange(height)[:, None] + 0.5) / width
    one = np.ones((height, width))
    noise = rng.standard_normal((channels - TERMS, height, width), np.float32)
    features = np.concatenate([np.stack([one, one * u, one * v, one * u**2, one * v**2]).astype(np.float32), noise])
    return torch.from_numpy(features)


def _levels(cells: npt.NDArray[np.float32], like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Cells of all levels after each other, (cells, X), to a map (1, X, rows, columns) for each."""
    ends = np.cumsum([level.shape[2] * level.shape[3] for level in like])[:-1]
    return tuple(
        torch.from_numpy(np.ascontiguousarray(part.T)).reshape(1, -1, *level.shape[2:])
        for part, level in zip(np.split(cells, ends), like, strict=True)
    )
