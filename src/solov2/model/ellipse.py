"""Relative position: every kernel begins with an ellipse around its own cell.

SOLOv2 tells masks apart by their position in the whole picture, which it appends as two coordinates
(paper, section 3.2). A small network that learns it so knows one picture size. Here a cell predicts,
relative to itself and in its own stride, the centre, radii, height and steepness of an elliptic
paraboloid that is added to the mask's logits. In absolute coordinates u, v that is a sum over
1, u, v, u², v²: five more mask-feature channels with fixed values, and five more kernel entries, so
that the dynamic convolution stays what it is. Nothing depends on the picture's size, and far from its
cell a mask has no pixels.

Letters: B images, h, w a map's size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solov2.structures import MASK_STRIDE

PARAMETERS = 6
"""What a cell predicts: centre x, y and log radii x, y, all in strides; log steepness; height."""

TERMS = 5
"""Channels that the ellipse becomes: the coefficients of 1, u, v, u², v²."""

UNIT = 64.0
"""Pixels per unit of u and v: keeps the squares small, for the sake of rounding."""

LOG_LIMIT = 4.0
"""Radii stay between exp(-4) and exp(4) times two strides."""

START_RADIUS = 2.0
"""Strides, of an untrained network."""

STEEPNESS = 4.0
"""Logit at the centre of an untrained network's ellipse; at its edge it is 0."""


def position_terms(mask_features: Tensor) -> Tensor:
    """Appends the terms' values: (B, E, h, w) becomes (B, E + 5, h, w), float32."""
    batch, _, height, width = mask_features.shape
    device = mask_features.device
    u = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (MASK_STRIDE / UNIT)
    v = (torch.arange(height, device=device, dtype=torch.float32) + 0.5)[:, None] * (MASK_STRIDE / UNIT)
    one = torch.ones((height, width), device=device)
    terms = torch.stack([one, one * u, one * v, one * u**2, one * v**2])
    return torch.cat([mask_features.float(), terms.expand(batch, -1, -1, -1)], dim=1)


def ellipses_of(kernels: Tensor, stride: int) -> Tensor:
    """The ellipses that a kernel map's last 6 channels say.

    Args:
        kernels: (B, E + 6, h, w) as the head predicts them.
        stride: input pixels per cell.

    Returns:
        (B, 5, h, w), float32: centre x and y, in units; how fast the logit falls with the square of the distance from
        it along x and along y; the logit at the centre.
    """
    dx, dy, log_rx, log_ry, log_steepness, height = kernels[:, -PARAMETERS:].float().unbind(1)
    rows, columns = kernels.shape[-2:]
    cell = stride / UNIT
    cx = (torch.arange(columns, device=kernels.device) + 0.5 + dx) * cell
    cy = ((torch.arange(rows, device=kernels.device) + 0.5)[:, None] + dy) * cell
    steepness = STEEPNESS * _exp(log_steepness)
    a = steepness / (START_RADIUS * cell * _exp(log_rx)) ** 2
    b = steepness / (START_RADIUS * cell * _exp(log_ry)) ** 2
    return torch.stack([cx, cy, a, b, height + steepness], dim=1)


def with_coefficients(kernels: Tensor, ellipses: Tensor) -> Tensor:
    """Replaces a kernel map's last 6 channels by the ellipse's 5 coefficients.

    Args:
        kernels: (B, E + 6, h, w) as the head predicts them.
        ellipses: (B, 5, h, w), what :func:`ellipses_of` makes of them.

    Returns:
        (B, E + 5, h, w), float32: the squares of positions need it.
    """
    cx, cy, a, b, top = ellipses.unbind(1)
    constant = top - a * cx**2 - b * cy**2
    terms = torch.stack([constant, 2 * a * cx, 2 * b * cy, -a, -b], dim=1)
    return torch.cat([kernels.float()[:, :-PARAMETERS], terms], dim=1)


def add_ellipses(logits: Tensor, ellipses: Tensor) -> Tensor:
    """Adds ellipses to mask logits, each measured from its own centre.

    The same sum as that of coefficients and position terms, for which training takes it. But far from the picture's
    corner that one is a small difference of large numbers: at 1,400 pixels float32 leaves errors of 1e-2 in a logit,
    and two programs that round differently then disagree about pixels. Here it is 1e-4.

    Args:
        logits: (..., P, h, w), which may be overwritten.
        ellipses: (..., P, 5) of :func:`ellipses_of`.

    Returns:
        (..., P, h, w).
    """
    height, width = logits.shape[-2:]
    cx, cy, a, b, top = (x[..., None] for x in ellipses.unbind(-1))  # (..., P, 1) each
    u = (torch.arange(width, device=logits.device, dtype=torch.float32) + 0.5) * (MASK_STRIDE / UNIT)
    v = (torch.arange(height, device=logits.device, dtype=torch.float32) + 0.5) * (MASK_STRIDE / UNIT)
    across, down = top - a * (u - cx) ** 2, -b * (v - cy) ** 2  # (..., P, w), (..., P, h)
    return logits + across[..., None, :] + down[..., :, None]


def _exp(x: Tensor) -> Tensor:
    return x.clamp(-LOG_LIMIT, LOG_LIMIT).exp()
