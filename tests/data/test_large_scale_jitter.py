from dataclasses import replace

import numpy as np
import pytest

from solov2.data.crop import cut_out, visible_enough
from solov2.data.sample import Sample
from solov2.data.shapes import Bitmap, Polygons, Window
from solov2.data.transforms import LargeScaleJitter, pad

from .marked import check_alignment, marked, rng

FILL = (124, 116, 104)


def at(scale: float, target: tuple[int, int] = (64, 96), **options: tuple[int, int, int]) -> LargeScaleJitter:
    return LargeScaleJitter(target, (scale, scale), **options)


@pytest.mark.parametrize(
    ("hw", "scale", "expected"),
    [
        ((64, 96), 1.0, (64, 96)),
        ((64, 96), 0.5, (32, 48)),
        ((64, 96), 2.0, (128, 192)),
        ((128, 96), 1.0, (64, 48)),  # the side that fits worse decides
        ((3000, 5), 0.1, (6, 1)),  # never below one pixel
    ],
)
def test_sizes(hw: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert at(scale).size_for(hw, scale) == expected


@pytest.mark.parametrize("scale", [0.1, 0.7, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("hw", [(64, 96), (57, 45), (1, 300), (200, 3)])
def test_the_result_has_the_size(scale: float, hw: tuple[int, int]) -> None:
    sample = at(scale)(Sample.of_image(np.full((*hw, 3), 9, np.uint8)), rng())
    assert sample.hw == (64, 96)
    assert sample.original_hw == hw
    assert len(sample.shapes) == len(sample.boxes) == len(sample.labels) == 0


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0])
def test_smaller_pictures_are_padded_at_the_end(scale: float) -> None:
    sample = at(scale, (64, 128))(marked(), rng())
    height, width = round(64 * scale), round(96 * scale)
    assert (sample.image[height:] == FILL).all()
    assert (sample.image[:, width:] == FILL).all()
    assert (sample.image[:height, :width, 1:] == 0).all()  # red and black alone
    check_alignment(replace(sample, image=np.where(sample.image[..., 1:2] > 0, 0, sample.image)), scale=scale)


def test_larger_pictures_are_cut_at_every_place() -> None:
    places = np.arange(128 * 192).reshape(128, 192)
    coded = Sample.of_image(np.stack([places // 256, places % 256, places * 0], axis=2).astype(np.uint8))
    step = at(2.0)  # twice what would fit, which is this picture's own size
    corners = set()
    for seed in range(40):
        cut = step(coded, rng(seed)).image.astype(int)
        top, left = divmod(int(cut[0, 0, 0] * 256 + cut[0, 0, 1]), 192)
        np.testing.assert_array_equal(cut, coded.image[top : top + 64, left : left + 96])
        corners.add((top, left))
    assert len(corners) > 30


def test_masks_stay_on_their_object() -> None:
    kept = 0
    for seed in range(60):
        sample = LargeScaleJitter((64, 96), (0.5, 2.0))(marked(), rng(seed))
        red = sample.image[:, :, 0].astype(int) - sample.image[:, :, 2] > 127
        for shape in sample.shapes:
            bitmap, mask = shape.bitmap(sample.hw), np.zeros(sample.hw, bool)
            height, width = bitmap.pixels.shape
            mask[bitmap.top : bitmap.top + height, bitmap.left : bitmap.left + width] = bitmap.pixels
            least = 0.75 if isinstance(shape, Polygons) else 0.65  # scaled bitmaps are off by up to half a pixel
            assert (mask & red).sum() > least * (mask | red).sum()
            kept += 1
    assert kept > 60


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 10, 10), True),
        ((-90, 0, 10, 10), True),  # exactly a tenth of it
        ((-91, 0, 10, 10), False),
        ((10, 10, 14, 14), True),  # exactly one target pixel
        ((10, 10, 14, 13.9), False),
        ((10, 10, 11, 26), True),  # long and thin, of the same area
        ((96, 0, 106, 10), False),  # beside the window
        ((10, 10, 10, 30), False),  # no area
    ],
)
def test_what_is_visible_enough(box: tuple[float, ...], expected: bool) -> None:
    assert visible_enough(Window(0, 0, 64, 96), np.array([box], float)).tolist() == [expected]


def test_only_wanted_instances_are_cut_out() -> None:
    sample = cut_out(marked(), Window(0, 0, 64, 96), np.array([False, True]))
    assert sample.labels.tolist() == [1]
    assert isinstance(sample.shapes[0], Polygons)
    assert len(cut_out(marked(), Window(60, 90, 4, 6), np.array([True, True])).shapes) == 0  # nothing of them is there


def test_nothing_goes_on_in_the_padding() -> None:
    sample = cut_out(marked(), Window(0, 0, 64, 24), np.array([True, True]))  # the polygon reaches column 44
    padded = pad(sample, (64, 96), FILL)
    assert all(isinstance(shape, Bitmap) for shape in padded.shapes)
    for shape in padded.shapes:
        assert shape.rasterize((64, 96), (64, 96)).mask[:, 6:].sum() == 0
        assert shape.rasterize((64, 96), (64, 96)).mask[:, :6].sum() > 0


def test_polygons_inside_stay_polygons() -> None:
    sample = marked()
    assert pad(sample, (80, 96), FILL).shapes[1] is sample.shapes[1]
    assert pad(sample, (64, 96), FILL) is sample


def test_the_same_numbers_give_the_same_picture() -> None:
    step = LargeScaleJitter((64, 96))
    first, again, other = (step(marked(), rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
