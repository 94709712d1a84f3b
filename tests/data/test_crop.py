from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from solov2.data.collate import collate
from solov2.data.crop import RandomCrop, crop
from solov2.data.sample import Sample
from solov2.data.shapes import Bitmap, Polygons, Window
from solov2.data.transforms import flip, resize_sample, transpose

from .marked import marked, rng

Box = tuple[float, float, float, float]


def boxed(boxes: list[Box], hw: tuple[int, int] = (100, 100)) -> Sample:
    """A picture whose instances are their boxes; every pixel tells where it was."""
    image = np.zeros((*hw, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = np.arange(hw[0])[:, None], np.arange(hw[1])
    corners = [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float) for x0, y0, x1, y1 in boxes]
    return replace(
        Sample.of_image(image),
        labels=np.arange(len(boxes)),
        boxes=np.array(boxes, float).reshape(-1, 4),
        shapes=tuple(Polygons((part,)) for part in corners),
    )


def window_of(sample: Sample) -> tuple[int, int, int, int]:
    """Where a crop of such a picture was taken: x0 y0 x1 y1."""
    top, left = (int(value) for value in sample.image[0, 0, :2])
    return left, top, left + sample.hw[1], top + sample.hw[0]


def iou(first: Box, second: Box) -> float:
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize(
    "window",
    [
        Window(0, 0, 64, 96),  # the whole picture
        Window(10, 18, 40, 30),  # around the corner
        Window(15, 22, 30, 11),  # inside it, cutting every side
        Window(0, 0, 57, 33),  # odd sizes
        Window(33, 25, 9, 9),  # only the stem
    ],
)
def test_picture_mask_and_box_are_cut_together(window: Window) -> None:
    sample = marked()
    cut = crop(sample, window)
    rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
    np.testing.assert_array_equal(cut.image, sample.image[rows, columns])
    red = (cut.image[:, :, 0] > 127).astype(np.uint8)
    expected = Bitmap.of(red).rasterize(cut.hw, (64, 96))
    if len(cut.shapes) == 0:
        assert window == Window(33, 25, 9, 9)  # the centre of the box lies elsewhere
        return
    assert len(cut.shapes) == len(cut.boxes) == len(cut.labels) == 2
    for shape in cut.shapes:
        target = shape.rasterize(cut.hw, (64, 96))
        np.testing.assert_array_equal(target.mask, expected.mask)
        assert target.center == pytest.approx(expected.center, abs=1e-9)
    x0, y0, x1, y1 = sample.boxes[0] - [window.left, window.top, window.left, window.top]
    np.testing.assert_array_equal(
        cut.boxes, [[max(x0, 0), max(y0, 0), min(x1, window.width), min(y1, window.height)]] * 2
    )
    assert cut.original_hw == sample.original_hw


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((10, 10, 20, 20), True),
        ((0, 10, 20, 20), True),  # its centre lies on the left edge, which is inside
        ((20, 0, 40, 20), True),  # on the top edge
        ((40, 10, 60, 20), False),  # on the right edge, which is outside
        ((20, 40, 40, 60), False),  # on the bottom edge
        ((-1, 10, 20, 20), False),
        ((60, 60, 70, 70), False),
        ((-100, -100, 160, 160), True),
        ((30, 20, 30, 40), False),  # has no area
    ],
)
def test_the_centre_of_a_box_decides(box: Box, kept: bool) -> None:
    sample = boxed([box, (12, 14, 30, 40), (0, 0, 5, 5)])
    cut = crop(sample, Window(10, 10, 40, 40))
    assert cut.labels.tolist() == ([0, 1] if kept else [1])
    assert len(cut.boxes) == len(cut.shapes) == len(cut.labels)
    assert ((cut.boxes >= 0) & (cut.boxes <= 40)).all()
    np.testing.assert_array_equal(cut.boxes[-1], [2, 4, 20, 30])


def test_an_empty_mask_goes_although_its_box_stays_inside() -> None:
    # A frame: the middle of its box is empty.
    mask = np.ones((64, 64), np.uint8)
    mask[8:56, 8:56] = 0
    sides = tuple(
        np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)
        for x0, y0, x1, y1 in [(0, 0, 64, 8), (0, 56, 64, 64), (0, 8, 8, 56), (56, 8, 64, 56)]
    )
    sample = replace(
        Sample.of_image(np.zeros((64, 64, 3), np.uint8)),
        labels=np.array([4, 5, 6]),
        boxes=np.array([[0.0, 0, 64, 64], [0, 0, 64, 64], [20, 20, 40, 40]]),
        shapes=(Bitmap.of(mask), Polygons(sides), Polygons((np.array([[20.0, 20], [40, 20], [40, 40]]),))),
    )
    assert crop(sample, Window(8, 8, 48, 48)).labels.tolist() == [6]
    assert crop(sample, Window(7, 8, 48, 48)).labels.tolist() == [4, 5, 6]
    alone = replace(sample, labels=sample.labels[:2], boxes=sample.boxes[:2], shapes=sample.shapes[:2])
    cut = crop(alone, Window(8, 8, 48, 48))
    assert cut.labels.shape == (0,)
    assert cut.boxes.shape == (0, 4)
    assert cut.labels.dtype == np.int64
    # A random crop does not settle for such a window.
    step = RandomCrop(thresholds=(0.0,), allow_no_crop=False, num_attempts=5)
    results = [step(alone, rng(seed)) for seed in range(100)]
    assert all(len(result.labels) > 0 for result in results)
    assert any(result is not alone for result in results)


def test_crops_move_with_later_transforms() -> None:
    # A polygon that sticks out of the picture stays on its pixels when the picture is turned.
    sample = transpose(flip(crop(marked(), Window(15, 22, 30, 15))))
    red = (sample.image[:, :, 0] > 127).astype(np.uint8)
    expected = Bitmap.of(red).rasterize(sample.hw, (32, 32)).mask
    assert expected.any()
    for shape in sample.shapes:
        np.testing.assert_array_equal(shape.rasterize(sample.hw, (32, 32)).mask, expected)
    double = resize_sample(sample, (sample.hw[0] * 2, sample.hw[1] * 2))
    assert double.hw == (30, 60)
    assert ((double.boxes >= 0) & (double.boxes <= [60, 30, 60, 30])).all()


OBJECTS: list[Box] = [(5, 5, 30, 35), (40, 20, 80, 90), (60, 60, 95, 95)]


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("cover_all_box", [False, True])
def test_thresholds_are_honoured(threshold: float, cover_all_box: bool) -> None:
    sample = boxed(OBJECTS)
    step = RandomCrop(thresholds=(threshold,), allow_no_crop=False, cover_all_box=cover_all_box)
    cuts = [step(sample, rng(seed)) for seed in range(150)]
    cuts = [cut for cut in cuts if cut is not sample]
    assert bool(cuts) == (threshold < 0.3 if cover_all_box else True)
    for cut in cuts:
        overlaps = [iou(window_of(cut), box) for box in OBJECTS]
        assert (min(overlaps) if cover_all_box else max(overlaps)) >= threshold
        assert len(cut.labels) > 0


def test_overlap_over_the_object() -> None:
    # A small object can never fill a window of this size, but it can lie in it.
    small: Box = (45, 45, 55, 55)
    options: dict[str, Any] = {"thresholds": (0.9,), "allow_no_crop": False}
    sample = boxed([small])
    assert all(RandomCrop(**options)(sample, rng(seed)) is sample for seed in range(30))
    cuts = [RandomCrop(**options, ioumode="iof")(sample, rng(seed)) for seed in range(100)]
    assert all(cut is not sample for cut in cuts)
    for cut in cuts:
        x0, y0, x1, y1 = window_of(cut)
        assert (min(x1, 55) - max(x0, 45)) * (min(y1, 55) - max(y0, 45)) >= 90
    assert any(
        cut.boxes[0].tolist() != [0, 0, 10, 10] and (cut.boxes[0, 2:] - cut.boxes[0, :2]).prod() < 100 for cut in cuts
    )


def dots(hw: tuple[int, int] = (60, 90)) -> Sample:
    """So many small objects that every window holds one: windows are then as they were drawn."""
    return boxed([(x, y, x + 2.0, y + 2.0) for y in range(0, hw[0], 12) for x in range(0, hw[1], 12)], hw)


def test_windows_are_drawn_as_stated() -> None:
    sample, generator = dots(), rng()
    step = RandomCrop(thresholds=(0.0,), allow_no_crop=False, num_attempts=1)
    cuts = [step(sample, generator) for _ in range(2000)]
    heights, widths = np.array([cut.hw for cut in cuts]).T
    scale = np.sqrt(heights * widths / (60 * 90))
    assert scale.min() > 0.27  # 0.3, less what is lost to whole pixels
    assert scale.max() > 0.98
    assert scale.mean() == pytest.approx(0.65 - 0.5 * (1 / 60 + 1 / 90) / 2, abs=0.02)
    ratio = widths / 90 / (heights / 60)
    # The long and the short end of each scale are reached, and never passed but by whole pixels.
    assert ratio.max() == pytest.approx(2, abs=0.2)
    assert ratio.min() == pytest.approx(0.5, abs=0.06)
    assert (heights <= 60).all()
    assert (widths <= 90).all()
    # All positions: the last row and the last column are not left out.
    x0, y0, x1, y1 = np.array([window_of(cut) for cut in cuts]).T
    assert (x0.min(), y0.min(), x1.max(), y1.max()) == (0, 0, 90, 60)
    room = (heights < 60) & (widths < 90)
    assert (x1[room] == 90).any()
    assert (y1[room] == 60).any()
    assert np.mean(y0[room] / (60 - heights[room])) == pytest.approx(0.5, abs=0.03)
    assert np.mean(x0[room] / (90 - widths[room])) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 1 / 7),  # six thresholds and no crop
        ({"thresholds": (0.0,)}, 1 / 2),
        ({"allow_no_crop": False}, 0),
        ({"thresholds": (0.0,), "allow_no_crop": False, "prob": 0.25}, 3 / 4),
        ({"prob": 0.0}, 1),
    ],
)
def test_share_of_pictures_left_whole(options: dict[str, Any], share: float) -> None:
    # Overlap over the object, which small objects reach at every threshold.
    step, sample, generator = RandomCrop(ioumode="iof", **options), boxed([(48, 48, 52, 52)]), rng()
    whole = sum(step(sample, generator) is sample for _ in range(2000))
    assert whole / 2000 == pytest.approx(share, abs=0.03)


def test_sides_without_a_ratio_are_independent() -> None:
    sample, generator = dots((60, 60)), rng()
    step = RandomCrop(aspect_ratio=None, scaling=(0.2, 1.0), thresholds=(0.0,), allow_no_crop=False)
    sizes = np.array([step(sample, generator).hw for _ in range(500)])
    assert sizes.min() >= 12
    assert sizes.max() >= 58
    elongation = sizes.max(axis=1) / sizes.min(axis=1)
    assert elongation.max() < 2.2  # 2 before the sides are whole pixels
    assert elongation.max() > 1.8


@pytest.mark.parametrize("hw", [(1, 1), (1, 50), (50, 1), (2, 3)])
@pytest.mark.parametrize("aspect_ratio", [(0.5, 2.0), None])
def test_the_smallest_pictures(hw: tuple[int, int], aspect_ratio: tuple[float, float] | None) -> None:
    sample = boxed([(0, 0, hw[1], hw[0])], hw)
    step = RandomCrop(aspect_ratio=aspect_ratio, allow_no_crop=False)
    for seed in range(30):
        cut = step(sample, rng(seed))
        assert min(cut.hw) >= 1
        assert cut.boxes.tolist() == [[0, 0, cut.hw[1], cut.hw[0]]]
        collate([cut], with_targets=True)


def test_a_window_as_large_as_the_picture() -> None:
    sample = boxed(OBJECTS)
    step = RandomCrop(aspect_ratio=(1.0, 1.0), scaling=(1.0, 1.0), thresholds=(0.0,), allow_no_crop=False)
    cut = step(sample, rng())
    np.testing.assert_array_equal(cut.image, sample.image)
    np.testing.assert_array_equal(cut.boxes, sample.boxes)


def test_ratios_that_fit_no_window_leave_the_picture_whole() -> None:
    sample = boxed(OBJECTS)
    assert RandomCrop(aspect_ratio=(1.5, 2.0), scaling=(0.9, 1.0), allow_no_crop=False)(sample, rng()) is sample


@pytest.mark.parametrize("aspect_ratio", [(1.6, 2.0), (0.5, 0.6)])
def test_ratios_are_width_to_height_of_the_pictures_own(aspect_ratio: tuple[float, float]) -> None:
    sample, generator = dots((120, 180)), rng()
    step = RandomCrop(aspect_ratio=aspect_ratio, scaling=(0.3, 0.7), thresholds=(0.0,), allow_no_crop=False)
    for _ in range(50):
        height, width = step(sample, generator).hw
        assert aspect_ratio[0] - 0.1 < width / 180 / (height / 120) < aspect_ratio[1] + 0.1


def test_a_picture_without_objects_stays() -> None:
    sample = Sample.of_image(np.zeros((40, 50, 3), np.uint8))
    assert RandomCrop(allow_no_crop=False)(sample, rng()) is sample
    cut = crop(sample, Window(3, 4, 20, 10))
    assert cut.hw == (20, 10)
    assert len(collate([cut], with_targets=True).targets[0]) == 0


def test_the_input_is_not_changed() -> None:
    sample = marked()
    cut = RandomCrop(thresholds=(0.0,), allow_no_crop=False)(sample, rng(3))
    assert cut is not sample
    cut.image[:] = 7
    np.testing.assert_array_equal(sample.image, marked().image)
    np.testing.assert_array_equal(sample.boxes, marked().boxes)


@pytest.mark.parametrize("step", [RandomCrop(), RandomCrop(aspect_ratio=None, cover_all_box=True)])
def test_the_generator_alone_decides(step: Callable[..., Sample]) -> None:
    first, again = (step(boxed(OBJECTS), rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)


def test_five_hundred_instances() -> None:
    boxes = [(x, y, x + 3.0, y + 3.0) for y in range(0, 100, 4) for x in range(0, 80, 4)]
    cut = RandomCrop(thresholds=(0.0,), allow_no_crop=False)(boxed(boxes), rng(1))
    assert 0 < len(cut.labels) < 500
    x0, y0, x1, y1 = window_of(cut)
    expected = [i for i, box in enumerate(boxes) if x0 <= box[0] + 1.5 < x1 and y0 <= box[1] + 1.5 < y1]
    assert cut.labels.tolist() == expected
