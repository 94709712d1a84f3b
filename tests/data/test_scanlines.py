from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from solov2.data.scanlines import CENTER, FULL_SAMPLING, MIN_CENTRAL, centrals_below, draw, is_central
from solov2.data.shapes import Bitmap, Polygons, rasterize

Polygon = npt.NDArray[np.float64]
Mask = npt.NDArray[np.uint8]
HW = tuple[int, int]


def samples(positions: Polygon, size: int) -> npt.NDArray[np.int64]:
    indices = np.arange(max(int(np.floor(positions.min())), 0), min(int(np.ceil(positions.max())), size))
    return indices if len(indices) <= FULL_SAMPLING else indices[np.isin(indices % 4, (1, 2))]


def inside(polygon: Polygon, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Of every sample on its own: how many edges a ray to the left crosses, odd or even."""
    odd = np.zeros((len(rows), len(columns)), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        for row in np.flatnonzero((y0 <= rows + CENTER) != (y1 <= rows + CENTER)):
            crossing = x0 + (rows[row] + CENTER - y0) * (x1 - x0) / (y1 - y0)
            odd[row] ^= columns + CENTER >= crossing
    return odd


def by_pixels(shape: tuple[Polygon, ...], hw: HW, mask_hw: HW) -> tuple[Mask, tuple[float, float]]:
    """One instance, drawn pixel by pixel: (h, w) and the centre of mass."""
    points = np.concatenate(shape)
    rows, columns = samples(points[:, 1], hw[0]), samples(points[:, 0], hw[1])
    union = np.any([inside(polygon, rows, columns) for polygon in shape], axis=0)
    y, x = np.nonzero(union)
    pixels = np.stack([rows[y], columns[x]])
    cells = np.zeros(mask_hw, int)
    np.add.at(cells, tuple(pixels[:, np.isin(pixels % 4, (1, 2)).all(axis=0)] // 4), 1)
    center = tuple(pixels.sum(axis=1) / len(y)) if len(y) else (np.nan, np.nan)
    return (cells >= MIN_CENTRAL).astype(np.uint8), center


def padded(hw: HW) -> HW:
    return -(-hw[0] // 32) * 32, -(-hw[1] // 32) * 32


def check(shapes: list[tuple[Polygon, ...]], hw: HW) -> int:
    """Compares a picture's shapes, drawn at once, with each drawn on its own; how many cells are set."""
    mask_hw = (padded(hw)[0] // 4, padded(hw)[1] // 4)
    masks = np.zeros((len(shapes), *mask_hw), np.uint8)
    centers = draw(shapes, hw, masks)
    for shape, mask, center in zip(shapes, masks, centers, strict=True):
        expected, expected_center = by_pixels(shape, hw, mask_hw)
        np.testing.assert_array_equal(mask, expected)
        np.testing.assert_array_equal(center, expected_center)  # whole numbers divided: equal to the last bit
    return int(masks.sum())


def blob(rng: np.random.Generator, hw: HW) -> Polygon:
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 20))))
    radii = rng.uniform(0.3, 90) * rng.uniform(0.4, 1, len(angles))
    center = rng.uniform(-0.2, 1.2, 2) * hw[::-1]
    return np.column_stack([center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles)])


def scribble(rng: np.random.Generator, hw: HW) -> Polygon:
    return rng.uniform(-0.2, 1.2, (int(rng.integers(3, 12)), 2)) * hw[::-1]


def on_whole_and_half_pixels(rng: np.random.Generator, hw: HW) -> Polygon:
    return np.rint(scribble(rng, hw) * 2) / 2


def with_a_hole(rng: np.random.Generator, hw: HW) -> Polygon:
    """An outline that goes in along a cut, around the hole, and out again along the same cut."""
    outer = blob(rng, hw)
    middle = outer.mean(axis=0)
    hole = (outer - middle) * 0.5 + middle
    return np.concatenate([outer, outer[:1], hole[:1], hole[::-1]])


def flat(rng: np.random.Generator, hw: HW) -> Polygon:
    """A line, upright or level, or a point."""
    polygon = scribble(rng, hw)
    polygon[:, rng.permutation(2)[: int(rng.integers(1, 3))]] = float(rng.uniform(0, min(hw)))
    return polygon


KINDS = (blob, scribble, on_whole_and_half_pixels, with_a_hole, flat)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [1, 3])
def test_drawing_equals_looking_at_every_pixel(kind: Callable[[np.random.Generator, HW], Polygon], parts: int) -> None:
    rng, cells = np.random.default_rng(0), 0
    for _ in range(12):
        hw = (int(rng.integers(1, 200)), int(rng.integers(1, 200)))
        shapes = [tuple(kind(rng, hw) for _ in range(parts)) for _ in range(int(rng.integers(1, 5)))]
        cells += check(shapes, hw)
    assert cells > 1000 or kind is flat


@pytest.mark.parametrize("seed", range(12))
def test_shapes_of_all_kinds_in_one_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 260)), int(rng.integers(1, 260)))
    kinds = rng.integers(0, len(KINDS), (12, 3))
    shapes = [tuple(KINDS[kind](rng, hw) for kind in row[: int(rng.integers(1, 4))]) for row in kinds]
    check(shapes, hw)


@pytest.mark.parametrize("side", [1, 31, FULL_SAMPLING - 1, FULL_SAMPLING, FULL_SAMPLING + 1, 97])
@pytest.mark.parametrize("at", [(0, 0), (3, 1), (30, 60)])
def test_squares_up_to_every_edge(side: int, at: tuple[int, int]) -> None:
    hw = (128, 128)
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], float) + at
    inner = square.mean(axis=0) + (square - square.mean(axis=0)) / 2
    check([(square,), (square, square + 1), (square, inner), (square + 40,)], hw)


def test_nothing_else_than_the_boxes_is_touched() -> None:
    masks = np.full((1, 8, 8), 7, np.uint8)
    draw([(np.array([[8, 8], [24, 8], [24, 24], [8, 24]], float),)], (32, 32), masks)
    assert masks[0, 2:6, 2:6].tolist() == [[1] * 4] * 4
    masks[0, 2:6, 2:6] = 7
    assert (masks == 7).all()


def test_no_shapes() -> None:
    assert draw([], (32, 32), []).shape == (0, 2)
    masks, centers = rasterize((), (32, 40), (32, 64))
    assert (masks.shape, masks.dtype) == ((0, 8, 16), np.uint8)
    assert (centers.shape, centers.dtype) == ((0, 2), np.float64)


@pytest.mark.parametrize("far", [1e6, 1e15, 1e200, 1e308])
def test_corners_absurdly_far_away(far: float) -> None:
    """All of the picture is inside, or none of it; nothing overflows."""
    around = np.array([[-far, -far], [far, -far], [far, far], [-far, far]])
    masks = np.zeros((2, 8, 8), np.uint8)
    beside = np.array([[far / 2, -far], [far, -far], [far, far]])
    centers = draw([(around,), (beside,)], (30, 32), masks)
    assert masks[0].sum() == 8 * 8
    assert not masks[1].any()
    np.testing.assert_array_equal(centers, [[14.5, 15.5], [np.nan, np.nan]])


def test_polygons_and_bitmaps_side_by_side() -> None:
    rng, hw = np.random.default_rng(0), (90, 120)
    pixels = (rng.random(hw) < 0.5).astype(np.uint8)
    shapes = (Polygons((blob(rng, hw),)), Bitmap.of(pixels), Polygons((blob(rng, hw), blob(rng, hw))))
    masks, centers = rasterize(shapes, hw, padded(hw))
    assert masks.any(axis=(1, 2)).all()
    for shape, mask, center in zip(shapes, masks, centers, strict=True):
        alone = shape.rasterize(hw, padded(hw))
        np.testing.assert_array_equal(mask, alone.mask)
        np.testing.assert_array_equal(center, alone.center)


def test_central_pixels() -> None:
    indices = np.arange(20)
    expected = [index % 4 in (1, 2) for index in range(20)]
    assert is_central(indices).tolist() == expected
    assert centrals_below(indices).tolist() == [sum(expected[:index]) for index in range(20)]
