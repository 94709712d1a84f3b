import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as rle_codec

from solov2.data.scanlines import FULL_SAMPLING
from solov2.data.shapes import Bitmap, Polygons, Shape, Window

Mask = npt.NDArray[np.uint8]
Parts = tuple[npt.NDArray[np.float64], ...]


def padded(hw: tuple[int, int]) -> tuple[int, int]:
    return -(-hw[0] // 32) * 32, -(-hw[1] // 32) * 32


def quarter(mask: Mask, padded_hw: tuple[int, int]) -> Mask:
    """The rule that targets follow, written by way of the full-size mask."""
    canvas = np.zeros(padded_hw, np.uint8)
    canvas[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(cv2.resize(canvas, None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_LINEAR))


def full_size(bitmap: Bitmap, hw: tuple[int, int]) -> Mask:
    canvas = np.zeros(hw, np.uint8)
    height, width = bitmap.pixels.shape
    canvas[bitmap.top : bitmap.top + height, bitmap.left : bitmap.left + width] = bitmap.pixels
    return canvas


def random_mask(rng: np.random.Generator) -> Mask:
    """Blobs and loose pixels on a canvas of a random size, sometimes touching its border."""
    height, width = (int(side) for side in rng.integers(1, 90, 2))
    mask = (rng.random((height, width)) < rng.choice([0.0, 0.02, 0.5])).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(1, 30)), int(rng.integers(1, 30)))
        cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask


@pytest.mark.parametrize("seed", range(40))
def test_bitmap_equals_resizing_the_full_mask(seed: int) -> None:
    mask = random_mask(np.random.default_rng(seed))
    hw = (mask.shape[0], mask.shape[1])
    target = Bitmap.of(mask).rasterize(hw, padded(hw))
    np.testing.assert_array_equal(target.mask, quarter(mask, padded(hw)))
    assert target.mask.dtype == np.uint8
    if mask.any():
        assert target.center == tuple(np.argwhere(mask).sum(axis=0) / mask.sum())  # both are exact in float64
    else:
        assert all(map(math.isnan, target.center))


@pytest.mark.parametrize(
    ("central", "expected"),
    [
        ([[0, 0], [0, 0]], 0),
        ([[1, 0], [0, 0]], 0),
        ([[0, 1], [1, 0]], 1),
        ([[1, 1], [0, 0]], 1),
        ([[1, 1], [1, 0]], 1),
        ([[1, 1], [1, 1]], 1),
    ],
)
@pytest.mark.parametrize("ring", [0, 1])
def test_the_central_four_pixels_decide(central: list[list[int]], expected: int, ring: int) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[4:8, 8:12] = ring
    mask[5:7, 9:11] = central
    target = Bitmap.of(mask).rasterize((32, 32), (32, 32))
    assert target.mask[1, 2] == expected
    assert target.mask.sum() == expected


@pytest.mark.parametrize("new_hw", [(1, 1), (7, 300), (32, 32), (97, 61), (200, 13)])
@pytest.mark.parametrize("seed", range(6))
def test_bitmap_resize_is_nearest_neighbour(seed: int, new_hw: tuple[int, int]) -> None:
    mask = random_mask(np.random.default_rng(seed))
    resized = Bitmap.of(mask).resized((mask.shape[0], mask.shape[1]), new_hw)
    expected = cv2.resize(mask, new_hw[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(full_size(resized, new_hw), expected)
    target = resized.rasterize(new_hw, padded(new_hw))
    np.testing.assert_array_equal(target.mask, quarter(expected, padded(new_hw)))


def test_nearest_neighbour_at_every_ratio() -> None:
    # Where a source position is a whole number up to rounding, the order of the divisions shows.
    for old in range(1, 260, 3):
        row = np.arange(old, dtype=np.uint16)[None]
        for new in (1, 2, 3, 7, 32, 49, 98, 128, 161, 333, 512):
            expected = cv2.resize(row, (new, 1), interpolation=cv2.INTER_NEAREST)
            bits = np.array([[column >> bit & 1 for column in range(old)] for bit in range(9)], np.uint8)
            found = [full_size(Bitmap.of(bit[None]).resized((1, old), (1, new)), (1, new)) for bit in bits]
            np.testing.assert_array_equal(sum(layer.astype(int) << bit for bit, layer in enumerate(found)), expected)


def star(rng: np.random.Generator, hw: tuple[int, int], reach: tuple[float, float]) -> npt.NDArray[np.float64]:
    """A polygon around a centre, without self-intersection; ``reach`` is where centres lie, as shares."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 20))))
    radii = rng.uniform(6, 80) * rng.uniform(0.5, 1, len(angles))
    center = rng.uniform(*reach, 2) * hw[::-1]
    return np.column_stack([center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles)])


def simple(rng: np.random.Generator, hw: tuple[int, int]) -> Parts:
    return (np.clip(star(rng, hw, (0.2, 0.8)), 0, hw[::-1]),)


def several_parts(rng: np.random.Generator, hw: tuple[int, int]) -> Parts:
    return tuple(np.clip(star(rng, hw, (0.2, 0.8)), 0, hw[::-1]) for _ in range(3))


def sticking_out(rng: np.random.Generator, hw: tuple[int, int]) -> Parts:
    return (star(rng, hw, (0.0, 1.0)),)


def self_intersecting(rng: np.random.Generator, hw: tuple[int, int]) -> Parts:
    return (rng.uniform(0, 1, (int(rng.integers(4, 9)), 2)) * hw[::-1],)


MIN_FILL = 0.2
"""Pixels as a share of the extent, above which a shape's centre is compared: of a thin sliver only some are sampled."""


@pytest.mark.parametrize(
    ("kind", "median", "mean"),
    [
        (simple, 1.0, 0.98),
        (several_parts, 0.995, 0.99),
        (sticking_out, 1.0, 0.98),
        (self_intersecting, 0.99, 0.97),
    ],
)
def test_polygons_agree_with_cocos_raster(
    kind: Callable[[np.random.Generator, tuple[int, int]], Parts], median: float, mean: float
) -> None:
    # COCO's own raster rounds an outline to fifths of a pixel; single pixels at the border may differ.
    rng = np.random.default_rng(0)
    ious, offsets = [], []
    for _ in range(120):
        hw = (int(rng.integers(40, 300)), int(rng.integers(40, 300)))
        parts = kind(rng, hw)
        mask = rle_codec.decode(rle_codec.merge(rle_codec.frPyObjects([p.ravel().tolist() for p in parts], *hw)))
        expected = quarter(mask, padded(hw))
        target = Polygons(parts).rasterize(hw, padded(hw))
        if expected.sum() < 4:
            continue
        ious.append((expected & target.mask).sum() / (expected | target.mask).sum())
        window = Bitmap.of(mask).pixels
        if min(window.shape) > 8 and window.mean() > MIN_FILL:
            offsets.append(np.abs(np.argwhere(mask).mean(axis=0) - target.center).max())
    assert len(ious) > 100
    assert len(offsets) > 60
    assert np.median(ious) >= median
    assert np.mean(ious) >= mean
    assert max(offsets) < 1


@pytest.mark.parametrize("side", [FULL_SAMPLING - 8, FULL_SAMPLING + 8])
def test_polygon_on_whole_pixels(side: int) -> None:
    hw = (128, 160)
    corners = np.array([[9, 5], [9 + side, 5], [9 + side, 5 + side], [9, 5 + side]], float)
    mask = np.zeros(hw, np.uint8)
    mask[5 : 5 + side, 9 : 9 + side] = 1
    target = Polygons((corners,)).rasterize(hw, hw)
    np.testing.assert_array_equal(target.mask, quarter(mask, hw))
    # Of a long extent two pixels in four are sampled, so that the ends can weigh one pixel more or less.
    exact = (5 + (side - 1) / 2, 9 + (side - 1) / 2)
    assert target.center == pytest.approx(exact, abs=1e-9 if side <= FULL_SAMPLING else 1.0)


@pytest.mark.parametrize(
    "points",
    [
        [[1, 1], [1, 1], [1, 1]],  # a point
        [[2, 3], [20, 3], [11, 3]],  # a line
        [[4.6, 4.6], [4.9, 4.6], [4.9, 4.9]],  # between two pixel centres
        [[-30, -30], [-5, -30], [-5, -5]],  # left and above
        [[70, 10], [90, 10], [90, 40]],  # to the right, inside the padding
    ],
)
def test_polygons_without_a_pixel(points: list[list[float]]) -> None:
    target = Polygons((np.array(points, float),)).rasterize((60, 60), (64, 96))
    assert target.mask.shape == (16, 24)
    assert not target.mask.any()
    assert all(map(math.isnan, target.center))


def test_overlapping_parts_are_a_union_and_no_hole() -> None:
    square = np.array([[8, 8], [24, 8], [24, 24], [8, 24]], float)
    one = Polygons((square,)).rasterize((32, 32), (32, 32))
    twice = Polygons((square, square)).rasterize((32, 32), (32, 32))
    np.testing.assert_array_equal(one.mask, twice.mask)
    assert one.mask.sum() == 16


Move = Callable[[Shape, tuple[int, int]], tuple[Shape, tuple[int, int]]]


def flipped(shape: Shape, hw: tuple[int, int]) -> tuple[Shape, tuple[int, int]]:
    return shape.flipped(hw[1]), hw


def transposed(shape: Shape, hw: tuple[int, int]) -> tuple[Shape, tuple[int, int]]:
    return shape.transposed(), hw[::-1]


@pytest.mark.parametrize(("move", "axes"), [(flipped, "flip"), (transposed, "transpose")])
@pytest.mark.parametrize("seed", range(12))
def test_moves_commute_with_rasterising(move: Move, axes: str, seed: int) -> None:
    """Sides are multiples of 32, so that moving the raster equals moving the shape."""
    hw, rng = (96, 160), np.random.default_rng(seed)
    mask = np.zeros(hw, np.uint8)
    cv2.fillPoly(mask, [simple(rng, hw)[0].astype(np.int32)], 1)
    for shape, exact in ((Bitmap.of(mask), True), (Polygons(simple(rng, hw)), False)):
        before = shape.rasterize(hw, hw).mask
        expected = before[:, ::-1] if axes == "flip" else before.T
        moved, new_hw = move(shape, hw)
        found = moved.rasterize(new_hw, new_hw).mask
        if exact:
            np.testing.assert_array_equal(found, expected)
        else:  # points exactly on an edge belong to its right side
            assert (found != expected).sum() <= 1


@pytest.mark.parametrize("seed", range(12))
def test_twice_is_back(seed: int) -> None:
    mask = random_mask(np.random.default_rng(seed))
    hw = (mask.shape[0], mask.shape[1])
    bitmap = Bitmap.of(mask)
    np.testing.assert_array_equal(full_size(bitmap.flipped(hw[1]).flipped(hw[1]), hw), mask)
    np.testing.assert_array_equal(full_size(bitmap.transposed().transposed(), hw), mask)


@pytest.mark.parametrize("seed", range(8))
def test_polygon_and_bitmap_agree_after_a_resize(seed: int) -> None:
    hw, new_hw, rng = (90, 130), (176, 240), np.random.default_rng(seed)
    polygon = Polygons((star(rng, hw, (0.4, 0.6)),))
    mask = rle_codec.decode(rle_codec.merge(rle_codec.frPyObjects([polygon.parts[0].ravel().tolist()], *hw)))
    by_polygon = polygon.resized(hw, new_hw).rasterize(new_hw, padded(new_hw)).mask
    by_bitmap = Bitmap.of(mask).resized(hw, new_hw).rasterize(new_hw, padded(new_hw)).mask
    # A bitmap's border moves by up to half an old pixel, which is a quarter of a target pixel here.
    assert (by_polygon & by_bitmap).sum() / (by_polygon | by_bitmap).sum() > 0.85


def test_nothing_outside_the_picture_is_set() -> None:
    square = np.array([[-10, -10], [100, -10], [100, 100], [-10, 100]], float)
    target = Polygons((square,)).rasterize((36, 44), (64, 64))
    assert target.mask.sum() == 9 * 11
    assert target.center == ((36 - 1) / 2, (44 - 1) / 2)


def random_window(rng: np.random.Generator, hw: tuple[int, int]) -> Window:
    height, width = (int(rng.integers(1, side + 1)) for side in hw)
    return Window(int(rng.integers(hw[0] - height + 1)), int(rng.integers(hw[1] - width + 1)), height, width)


def cut(mask: Mask, window: Window) -> Mask:
    return mask[window.top : window.top + window.height, window.left : window.left + window.width]


@pytest.mark.parametrize("seed", range(40))
def test_bitmap_crop_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = random_mask(rng)
    for _ in range(5):
        window = random_window(rng, (mask.shape[0], mask.shape[1]))
        expected = cut(mask, window)
        cropped = Bitmap.of(mask).cropped(window)
        if not expected.any():
            assert cropped is None
            continue
        assert cropped is not None
        np.testing.assert_array_equal(full_size(cropped, (window.height, window.width)), expected)
        assert cropped.pixels.any(axis=1)[[0, -1]].all()  # cut to its extent again
        assert cropped.pixels.any(axis=0)[[0, -1]].all()


@pytest.mark.parametrize("kind", [simple, several_parts, sticking_out, self_intersecting])
def test_polygon_crop_is_the_crop_of_its_raster(
    kind: Callable[[np.random.Generator, tuple[int, int]], Parts],
) -> None:
    # Within FULL_SAMPLING pixels, where every pixel of a shape is looked at; whole blocks, so that cells stay cells.
    rng, hw = np.random.default_rng(0), (64, 64)
    seen = 0
    for _ in range(60):
        shape = Polygons(kind(rng, hw))
        top, left = (4 * int(value) for value in rng.integers(0, 8, 2))
        window = Window(top, left, 32, 32)
        cropped = shape.cropped(window)
        expected = cut(shape.rasterize(hw, hw).mask, Window(top // 4, left // 4, 8, 8))
        if cropped is None:
            assert not expected.any()
            continue
        np.testing.assert_array_equal(cropped.rasterize((32, 32), (32, 32)).mask, expected)
        seen += bool(expected.any())
    assert seen > 20


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([[2, 2], [8, 2], [8, 8]], False),  # left and above
        ([[2, 12], [10, 12], [10, 20]], False),  # touches the left edge
        ([[2, 12], [11, 12], [11, 20]], True),
        ([[30, 12], [40, 12], [40, 20]], False),  # touches the right edge
        ([[12, 29.5], [20, 29.5], [20, 50]], True),
        ([[-90, -90], [90, -90], [90, 90], [-90, 90]], True),  # all around
        ([[0, 0], [40, 0], [40, 5], [5, 5], [5, 40], [0, 40]], False),  # around its corner
        ([[0, 18], [90, 18], [90, 21], [0, 21]], True),  # a band across it, without a corner in it
    ],
)
def test_polygons_beside_a_window_are_left_out(points: list[list[float]], kept: bool) -> None:
    window, part = Window(10, 10, 20, 20), np.array(points, float)
    assert (Polygons((part,)).cropped(window) is not None) == kept
    inner = np.array([[12, 12], [16, 12], [16, 16]], float)
    both = Polygons((part, inner)).cropped(window)
    assert both is not None
    assert len(both.parts) == 1 + kept
    np.testing.assert_array_equal(both.parts[-1], inner - 10)


def test_windows_need_not_be_square() -> None:
    dot = np.array([[30.1, 4.1], [30.4, 4.1], [30.4, 4.4]])  # a corner is enough, a pixel's centre is not needed
    assert Polygons((dot,)).cropped(Window(0, 0, 10, 40)) is not None
    assert Polygons((dot,)).cropped(Window(0, 0, 40, 10)) is None
    assert Polygons((dot[:, ::-1],)).cropped(Window(0, 0, 40, 10)) is not None


def test_crops_of_one_pixel() -> None:
    bitmap = Bitmap.of(np.ones((1, 1), np.uint8))
    assert bitmap.cropped(Window(0, 0, 1, 1)) is not None
    square = np.array([[3, 3], [6, 3], [6, 6], [3, 6]], float)
    cropped = Polygons((square,)).cropped(Window(5, 5, 1, 1))
    assert cropped is not None
    assert cropped.rasterize((1, 1), (32, 32)).center == (0.0, 0.0)
    assert Polygons((square,)).cropped(Window(6, 5, 1, 1)) is None
    assert Bitmap.of(np.zeros((5, 5), np.uint8)).cropped(Window(1, 1, 3, 3)) is None


@pytest.mark.parametrize("seed", range(12))
def test_a_bitmap_has_the_polygons_pixels(seed: int) -> None:
    """At every size it gives the target that the polygons give where these are sampled at every pixel."""
    generator = np.random.default_rng(seed)
    hw = tuple(int(side) for side in generator.integers(8, FULL_SAMPLING, 2))
    parts = tuple(generator.uniform(-10, 70, (int(generator.integers(3, 8)), 2)) for _ in range(2))
    shape = Polygons(parts)
    bitmap, size = shape.bitmap((hw[0], hw[1])), padded((hw[0], hw[1]))
    expected, found = (s.rasterize((hw[0], hw[1]), size) for s in (shape, bitmap))
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.center, expected.center)
    assert bitmap.top >= 0
    assert bitmap.left >= 0
    assert bitmap.top + bitmap.pixels.shape[0] <= hw[0]
    assert bitmap.left + bitmap.pixels.shape[1] <= hw[1]


def test_a_bitmap_of_a_square_is_its_pixels() -> None:
    square = Polygons((np.array([(4, 2), (9, 2), (9, 8), (4, 8)], float),))
    bitmap = square.bitmap((20, 30))
    assert (bitmap.top, bitmap.left, bitmap.pixels.tolist()) == (2, 4, [[1] * 5] * 6)
    assert square.bitmap((5, 6)).pixels.tolist() == [[1] * 2] * 3  # cut by the picture


@pytest.mark.parametrize("corners", [[(40, 2), (50, 2), (50, 8)], [(-9, 2), (-2, 2), (-2, 8)], [(3, 3)] * 3])
def test_a_bitmap_of_nothing_is_empty(corners: list[tuple[int, int]]) -> None:
    assert Polygons((np.array(corners, float),)).bitmap((20, 30)).pixels.size == 0


def test_a_bitmap_is_cut_by_its_picture() -> None:
    bitmap = Bitmap(np.ones((4, 4), np.uint8), 18, 28).bitmap((20, 30))
    assert (bitmap.top, bitmap.left, bitmap.pixels.shape) == (18, 28, (2, 2))
    assert Bitmap(np.ones((4, 4), np.uint8), 20, 0).bitmap((20, 30)).pixels.size == 0


@pytest.mark.parametrize(
    ("corners", "stays"),
    [
        ([(0, 0), (30, 0), (30, 20), (0, 20)], True),  # the whole picture
        ([(0, 0), (30.5, 0), (30, 20), (0, 20)], False),
        ([(0, -0.5), (30, 0), (30, 20), (0, 20)], False),
    ],
)
def test_polygons_within_their_picture_stay_polygons(corners: list[tuple[float, float]], stays: bool) -> None:
    shape = Polygons((np.array(corners, float),))
    inside = shape.within((20, 30))
    assert (inside is shape) == stays
    target = inside.rasterize((40, 60), (64, 64))
    assert target.mask.sum() == 5 * 8  # 20 x 30 pixels: nothing outside, however much room there is
    np.testing.assert_array_equal(target.mask, shape.rasterize((20, 30), (64, 64)).mask)
