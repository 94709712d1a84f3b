from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

from solov2.data.distort import (
    RandomDistort,
    Range,
    scale_brightness,
    scale_contrast,
    scale_saturation,
    shift_hue,
)
from solov2.data.sample import Sample

from .marked import marked, rng

RGB = npt.NDArray[np.uint8]
OFF: Range = (1.0, 1.0, 1.0)


def noise(hw: tuple[int, int] = (120, 160), seed: int = 0) -> RGB:
    return rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def natural() -> RGB:
    """Smooth colours, few of them saturated."""
    small = rng(1).normal(120, 40, (6, 8, 3)).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))


def apart(first: RGB, second: RGB) -> npt.NDArray[np.int64]:
    return np.abs(first.astype(int) - second.astype(int))


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5, 0.77, 1.0, 1.13, 1.5, 2.0])
@pytest.mark.parametrize("image", [noise(), natural()], ids=["noise", "natural"])
@pytest.mark.parametrize(
    ("ours", "pillows", "exact"),
    [
        (scale_brightness, ImageEnhance.Brightness, True),
        (scale_contrast, ImageEnhance.Contrast, False),
        (scale_saturation, ImageEnhance.Color, False),
    ],
)
def test_factors_agree_with_pillow(
    ours: Callable[[RGB, float], RGB],
    pillows: Callable[[Image.Image], ImageEnhance.Brightness],
    exact: bool,
    image: RGB,
    factor: float,
) -> None:
    found = ours(image, factor)
    assert found.dtype == np.uint8
    expected = np.asarray(pillows(Image.fromarray(image)).enhance(factor))
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:  # a grey now and then is rounded the other way
        assert apart(found, expected).max() <= 1
        assert apart(found, expected).mean() < 0.005
    if factor == 1:
        np.testing.assert_array_equal(found, image)


def pillows_hue(image: RGB, steps: int) -> RGB:
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(steps % 256))
    return np.asarray(Image.merge("HSV", (turned, saturation, value)).convert("RGB"))


@pytest.mark.parametrize("steps", [-18, -1, 1, 5, 18, 100])
def test_hue_agrees_with_pillow_but_for_the_rounding_of_both(steps: int) -> None:
    image = noise((400, 400))
    found, expected = shift_hue(image, steps), pillows_hue(image, steps)
    assert apart(found, expected).max() <= 13
    assert apart(found, expected).mean() < 1.2
    # The way to 8-bit HSV and back loses as much there as here.
    assert apart(pillows_hue(image, 0), image).max() >= 7


@pytest.mark.parametrize(
    ("color", "shift", "expected"),
    [
        ((255, 0, 0), 256 / 3, (0, 255, 0)),
        ((255, 0, 0), -256 / 3, (0, 0, 255)),
        ((255, 0, 0), 128, (0, 255, 255)),
        ((90, 90, 90), 17, (90, 90, 90)),  # grey has no hue
        ((0, 0, 0), 17, (0, 0, 0)),
        ((255, 255, 255), -17, (255, 255, 255)),
        ((12, 200, 77), 0.4, (12, 200, 77)),  # less than half a step: not one byte changes
        ((12, 200, 77), 256, (12, 200, 77)),
    ],
)
def test_hues(color: tuple[int, int, int], shift: float, expected: tuple[int, int, int]) -> None:
    image = np.full((3, 4, 3), color, np.uint8)
    assert apart(shift_hue(image, shift), np.full((3, 4, 3), expected, np.uint8)).max() <= 6


def test_hue_without_a_step_returns_the_bytes() -> None:
    image = noise()
    np.testing.assert_array_equal(shift_hue(image, -0.4), image)


@pytest.mark.parametrize(
    ("adjust", "factor", "pixels", "expected"),
    [
        (scale_brightness, 0.5, [0, 1, 101, 255], [0, 0, 50, 127]),
        (scale_brightness, 1.5, [0, 1, 101, 255], [0, 1, 151, 255]),
        (scale_contrast, 0.5, [0, 100, 100, 200], [50, 100, 100, 150]),
        (scale_contrast, 2.0, [0, 100, 100, 200], [0, 100, 100, 255]),
        (scale_contrast, 0.0, [3, 4, 4, 4], [4, 4, 4, 4]),  # a mean of 3.75
        (scale_saturation, 0.3, [0, 1, 101, 255], [0, 1, 101, 255]),  # grey pixels stay
    ],
)
def test_levels_of_grey_pictures(
    adjust: Callable[[RGB, float], RGB], factor: float, pixels: list[int], expected: list[int]
) -> None:
    image = np.repeat(np.array(pixels, np.uint8).reshape(2, 2, 1), 3, axis=2)
    np.testing.assert_array_equal(adjust(image, factor)[:, :, 1].ravel(), expected)


def only(name: str, low: float, high: float, skip: float = 0.0, **options: bool | int) -> RandomDistort:
    ranges = dict.fromkeys(("hue", "saturation", "contrast", "brightness"), OFF) | {name: (low, high, skip)}
    return RandomDistort(**ranges, **options)  # type: ignore[arg-type]  # ranges and options have names of their own


@pytest.mark.parametrize(
    ("name", "adjust", "value"),
    [
        ("hue", shift_hue, 11.0),
        ("saturation", scale_saturation, 0.6),
        ("contrast", scale_contrast, 1.4),
        ("brightness", scale_brightness, 0.8),
    ],
)
@pytest.mark.parametrize("random_apply", [True, False])
def test_each_setting_drives_its_step(
    name: str, adjust: Callable[[RGB, float], RGB], value: float, random_apply: bool
) -> None:
    sample = Sample.of_image(noise())
    found = only(name, value, value, random_apply=random_apply)(sample, rng())
    np.testing.assert_array_equal(found.image, adjust(sample.image, value))
    assert found.image.dtype == np.uint8


@pytest.mark.parametrize("skip", [0.0, 0.2, 1.0])
def test_the_third_number_is_the_share_of_pictures_left_alone(skip: float) -> None:
    sample, generator = Sample.of_image(np.full((2, 2, 3), 100, np.uint8)), rng()
    step = only("brightness", 0.5, 0.5, skip)
    left = sum(step(sample, generator) is sample for _ in range(2000))
    assert left / 2000 == pytest.approx(skip, abs=0.03)


def test_values_are_drawn_evenly_from_the_range() -> None:
    sample, generator = Sample.of_image(np.full((1, 1, 3), 100, np.uint8)), rng()
    step = only("brightness", 0.5, 1.5)
    levels = np.array([step(sample, generator).image[0, 0, 0] for _ in range(2000)])
    assert levels.min() in (50, 51)
    assert levels.max() in (148, 149)
    assert levels.mean() == pytest.approx(99.5, abs=2)
    assert levels.std() == pytest.approx(100 / np.sqrt(12), abs=1.5)


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_share_of_pictures_distorted(prob: float) -> None:
    sample, generator = Sample.of_image(np.full((2, 2, 3), 100, np.uint8)), rng()
    step = RandomDistort(OFF, OFF, OFF, (0.5, 0.5, 0.0), prob=prob)
    changed = sum(step(sample, generator) is not sample for _ in range(2000))
    assert changed / 2000 == pytest.approx(prob, abs=0.03)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_count_limits_the_steps_of_a_random_order(count: int) -> None:
    # Of four steps only brightness changes a grey picture of one level.
    sample, generator = Sample.of_image(np.full((2, 2, 3), 100, np.uint8)), rng()
    step = only("brightness", 0.5, 0.5, count=count)
    changed = sum(step(sample, generator) is not sample for _ in range(2000))
    assert changed / 2000 == pytest.approx(count / 4, abs=0.03)


def orders(random_apply: bool) -> set[bytes]:
    """The results of all four steps at fixed values; each order gives another one."""
    step = RandomDistort((30, 30, 0), (0.4, 0.4, 0), (1.6, 1.6, 0), (1.4, 1.4, 0), random_apply=random_apply)
    sample, generator = Sample.of_image(noise((20, 20))), rng()
    return {step(sample, generator).image.tobytes() for _ in range(400)}


def test_orders_of_the_steps() -> None:
    image = noise((20, 20))
    bright = scale_brightness(image, 1.4)
    contrast_first = shift_hue(scale_saturation(scale_contrast(bright, 1.6), 0.4), 30)
    contrast_last = scale_contrast(shift_hue(scale_saturation(bright, 0.4), 30), 1.6)
    assert orders(random_apply=False) == {contrast_first.tobytes(), contrast_last.tobytes()}
    assert orders(random_apply=True) > orders(random_apply=False)
    assert len(orders(random_apply=True)) == 24


@pytest.mark.parametrize("random_apply", [True, False])
def test_channels_are_exchanged_in_the_fixed_order_only(random_apply: bool) -> None:
    sample = Sample.of_image(np.full((2, 2, 3), (10, 20, 30), np.uint8))
    step = RandomDistort(OFF, OFF, OFF, OFF, random_apply=random_apply, random_channel=True)
    generator = rng()
    found = [tuple(step(sample, generator).image[0, 0].tolist()) for _ in range(600)]
    assert len(set(found)) == (1 if random_apply else 6)
    share = found.count((10, 20, 30)) / 600
    assert share == pytest.approx(1.0 if random_apply else 0.5 + 0.5 / 6, abs=0.06)


def test_boxes_and_shapes_stay() -> None:
    sample = marked()
    found = RandomDistort((9, 9, 0), (0.6, 0.6, 0), (1.2, 1.2, 0), (0.7, 0.7, 0))(sample, rng())
    assert found.shapes is sample.shapes
    assert found.boxes is sample.boxes
    assert found.labels is sample.labels
    assert not np.array_equal(found.image, sample.image)
    np.testing.assert_array_equal(sample.image, marked().image)  # the input is not changed


@pytest.mark.parametrize("hw", [(1, 1), (1, 3), (3, 1), (4, 1), (57, 33)])
def test_pictures_of_every_size(hw: tuple[int, int]) -> None:
    for random_apply in (True, False):
        step = RandomDistort((9, 9, 0), (0.6, 0.6, 0), (1.2, 1.2, 0), (0.7, 0.7, 0), random_apply, random_channel=True)
        found = step(Sample.of_image(noise(hw)), rng())
        assert found.hw == hw
        assert found.image.dtype == np.uint8
        assert found.image.flags.c_contiguous


def test_the_generator_alone_decides() -> None:
    sample = Sample.of_image(noise())
    first, again, other = (RandomDistort()(sample, rng(seed)).image for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
