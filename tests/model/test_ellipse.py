import math

import pytest
import torch

from solov2.model.ellipse import (
    PARAMETERS,
    START_RADIUS,
    STEEPNESS,
    TERMS,
    add_ellipses,
    ellipses_of,
    position_terms,
    with_coefficients,
)
from solov2.model.layers import apply_kernels


def logits_of(parameters: list[float], stride: int, cell: tuple[int, int], hw: tuple[int, int]) -> torch.Tensor:
    """The mask logits (h, w) of one cell whose kernel is its ellipse alone; ``hw`` in pixels."""
    kernels = torch.zeros((1, 3 + PARAMETERS, -(-hw[0] // stride), -(-hw[1] // stride)))
    kernels[0, 3:, cell[0], cell[1]] = torch.tensor(parameters)
    features = torch.randn((1, 3, hw[0] // 4, hw[1] // 4), generator=torch.Generator().manual_seed(0))
    kernel = with_coefficients(kernels, ellipses_of(kernels, stride))[0, :, cell[0], cell[1]]
    return apply_kernels(kernel[None], position_terms(features)[0])[0]


def by_hand(parameters: list[float], stride: int, cell: tuple[int, int], y: int, x: int) -> float:
    """The paraboloid at mask pixel (y, x), straight from its definition."""
    dx, dy, log_rx, log_ry, log_steepness, height = parameters
    steepness = STEEPNESS * math.exp(log_steepness)
    rx, ry = (START_RADIUS * stride * math.exp(radius) for radius in (log_rx, log_ry))
    to_x = (4 * (x + 0.5) - (cell[1] + 0.5 + dx) * stride) / rx
    to_y = (4 * (y + 0.5) - (cell[0] + 0.5 + dy) * stride) / ry
    return height + steepness * (1 - to_x**2 - to_y**2)


@pytest.mark.parametrize("stride", [8, 16, 64])
def test_coefficients_give_the_ellipse(stride: int) -> None:
    parameters = [0.3, -0.7, 0.5, -0.2, 0.1, 0.4]
    logits = logits_of(parameters, stride, (1, 2), (192, 256))
    for y, x in ((0, 0), (3, 11), (20, 40), (47, 63)):
        expected = by_hand(parameters, stride, (1, 2), y, x)
        assert logits[y, x].item() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_far_cells_of_a_large_picture_are_as_exact() -> None:
    """Squares of positions are large there and nearly cancel."""
    parameters = [0.0, 0.0, -1.0, -1.0, 0.5, 0.0]
    logits = logits_of(parameters, 8, (255, 255), (2048, 2048))
    for y, x in ((511, 511), (510, 509), (505, 511)):
        assert logits[y, x].item() == pytest.approx(by_hand(parameters, 8, (255, 255), y, x), rel=0.01, abs=0.1)


def test_an_untrained_ellipse_surrounds_its_cell() -> None:
    logits = logits_of([0.0] * PARAMETERS, 16, (3, 3), (128, 128))
    inside = torch.nonzero(logits > 0)
    centre = (inside.double().mean(dim=0) + 0.5) * 4
    assert centre.tolist() == [56, 56]  # the middle of cell 3 of 16 pixels
    assert len(inside) * 16 == pytest.approx(math.pi * (START_RADIUS * 16) ** 2, rel=0.05)


def test_the_same_wherever_the_cell_is() -> None:
    """Translation by whole cells moves the mask and changes nothing else."""
    parameters = [0.2, 0.1, 0.3, -0.3, 0.0, 0.5]
    one, other = (logits_of(parameters, 8, cell, (128, 128)) for cell in ((4, 4), (9, 6)))
    assert torch.allclose(one[:20, :20], other[10:30, 4:24], atol=1e-3)


def test_radii_are_bounded() -> None:
    wild = logits_of([0, 0, 1e6, -1e6, 0, 0], 8, (2, 2), (64, 64))
    assert torch.isfinite(wild).all()
    assert torch.equal(wild, logits_of([0, 0, 4.0, -4.0, 0, 0], 8, (2, 2), (64, 64)))


def test_shapes_and_types() -> None:
    features = torch.zeros((2, 5, 8, 12), dtype=torch.bfloat16)
    assert position_terms(features).shape == (2, 5 + TERMS, 8, 12)
    assert position_terms(features).dtype == torch.float32
    predicted = torch.zeros((2, 5 + PARAMETERS, 4, 6), dtype=torch.bfloat16)
    kernels = with_coefficients(predicted, ellipses_of(predicted, 8))
    assert kernels.shape == (2, 5 + TERMS, 4, 6)
    assert kernels.dtype == torch.float32


def test_ellipses_are_what_their_coefficients_say() -> None:
    kernels = torch.randn((2, 3 + PARAMETERS, 4, 6), generator=torch.Generator().manual_seed(0))
    ellipses = ellipses_of(kernels, 8).flatten(2).mT  # (B, P, 5)
    coefficients = with_coefficients(kernels, ellipses_of(kernels, 8))[:, -TERMS:].flatten(2).mT
    terms = position_terms(torch.zeros(2, 0, 8, 12))
    expected = (coefficients @ terms.flatten(2)).reshape(2, -1, 8, 12)
    torch.testing.assert_close(add_ellipses(torch.zeros_like(expected), ellipses), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(add_ellipses(expected, ellipses), 2 * expected, rtol=1e-4, atol=1e-3)


def test_far_from_the_corner_nothing_is_lost() -> None:
    """2,800 pixels from it the sum of terms is a hundredth off, which two programs make different hundredths of."""
    kernels = torch.zeros((1, PARAMETERS, 352, 352))
    kernels[:, 2:4] = -1.0  # small objects
    kernels[:, 0] = 0.123
    cell = (slice(None), slice(None), 350, 349)
    ellipse, coefficients = ellipses_of(kernels, 8)[cell], with_coefficients(kernels, ellipses_of(kernels, 8))[cell]
    terms = position_terms(torch.zeros(1, 0, 704, 704))
    radius = START_RADIUS * 8 * math.exp(-1)
    u, v = (
        (torch.arange(704, dtype=torch.float64) + 0.5) * 4 - (place + 0.5 + move) * 8
        for place, move in ((349, 0.123), (350, 0))
    )
    exact = STEEPNESS * (1 - (u / radius) ** 2 - (v[:, None] / radius) ** 2)
    near = exact > -4
    ours = add_ellipses(torch.zeros(1, 704, 704), ellipse)[0]
    summed = (coefficients @ terms[0].flatten(1)).reshape(704, 704)
    assert (ours - exact)[near].abs().max() < 2e-4
    assert (summed - exact)[near].abs().max() > 20 * (ours - exact)[near].abs().max()
