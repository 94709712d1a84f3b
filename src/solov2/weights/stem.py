"""The first convolution for another order and scale of colours: a change of weights instead of pictures.

Padding is zero after normalisation on both sides, so that both compute the same at the border too.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEM = "backbone.stem.0.conv.weight"
"""Our name of it."""

PIXEL_STD = (58.395, 57.12, 57.375)
"""Standard deviation of red, green and blue, 0..255, that our pictures are divided by."""


def from_bgr(weight: Tensor) -> Tensor:
    """Weights (X, 3, k, k) for BGR - mean become those for (RGB - mean) / :data:`PIXEL_STD`."""
    return weight.flip(1) * _std(weight)


def to_bgr(weight: Tensor) -> Tensor:
    """The inverse of :func:`from_bgr`."""
    return (weight / _std(weight)).flip(1)


def _std(weight: Tensor) -> Tensor:
    return torch.tensor(PIXEL_STD, dtype=weight.dtype).reshape(1, 3, 1, 1)
