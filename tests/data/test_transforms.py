from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from solov2.data.collate import collate
from solov2.data.shapes import Bitmap, Polygons
from solov2.data.transforms import (
    INTERPOLATIONS,
    TRANSFORMS,
    RandomFlip,
    RandomResize,
    RandomRotate90,
    Resize,
    Sample,
    Transform,
    build_transforms,
    flip,
    resize_sample,
    transpose,
)

from .marked import check_alignment, marked, rng

COMPONENTS = np.load(Path(__file__).parents[1] / "parity" / "components.npz")


@pytest.mark.parametrize("row", COMPONENTS["resize/h_w_short_long_outh_outw_imh_imw_sy_sx"].tolist())
def test_resize_sizes_equal_the_references(row: list[float]) -> None:
    height, width, short, long, out_height, out_width, *_ = (int(value) for value in row)
    assert Resize((short, long)).size_for((height, width)) == (out_height, out_width)


@pytest.mark.parametrize(
    ("target_size", "options", "hw", "expected"),
    [
        ((800, 1333), {}, (1, 1), (800, 800)),
        ((800, 1333), {}, (20000, 300), (1333, 20)),
        ((800, 1333), {}, (300, 20000), (20, 1333)),
        ((448, 768), {}, (1, 5000), (1, 768)),  # never below one pixel
        ((768, 448), {}, (480, 640), (448, 597)),  # the smaller number is the short side, in either order
        ((480, 640), {"keep_ratio": False}, (100, 3000), (480, 640)),
        ((512, 1024), {"min_scale": 1.0}, (256, 320), (512, 640)),  # scaled up all the same
        ((512, 1024), {"min_scale": 1.0}, (700, 800), (700, 800)),  # would be scaled down: kept
        ((512, 1024), {"min_scale": 1.0}, (700, 1400), (512, 1024)),  # kept, its long side would be too long
        ((512, 1024), {"min_scale": 0.8}, (1000, 1100), (800, 880)),
    ],
)
def test_resize_sizes(
    target_size: tuple[int, int], options: dict[str, float], hw: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert Resize(target_size, **options).size_for(hw) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("hw", [(1, 1), (20000, 300), (3, 4000)])
def test_extreme_pictures_are_resized(hw: tuple[int, int]) -> None:
    step = Resize((64, 96))
    resized = step(Sample.of_image(np.full((*hw, 3), 9, np.uint8)), rng())
    assert resized.hw == step.size_for(hw)
    assert resized.original_hw == hw
    assert (resized.image == 9).all()


@pytest.mark.parametrize("target_size", [(64, 96), (128, 192), (100, 500), (150, 160), (50, 75)])
@pytest.mark.parametrize("keep_ratio", [True, False])
def test_everything_follows_a_resize(target_size: tuple[int, int], keep_ratio: bool) -> None:
    sample = Resize(target_size, keep_ratio)(marked(), rng())
    check_alignment(sample, scale=max(sample.hw[0] / 64, sample.hw[1] / 96))


def test_resized_boxes_are_exact_and_inside() -> None:
    sample = resize_sample(marked(), (128, 144))
    np.testing.assert_array_equal(sample.boxes[0], [30.0, 24.0, 66.0, 112.0])
    outside = marked()
    outside.boxes[0] = [-0.5, -0.5, 96.5, 64.5]
    np.testing.assert_array_equal(resize_sample(outside, (128, 192)).boxes[0], [0, 0, 192, 128])


def test_resize_is_bilinear_on_uint8() -> None:
    sample = marked()
    resized = resize_sample(sample, (100, 150))
    assert resized.image.dtype == np.uint8
    np.testing.assert_array_equal(resized.image, cv2.resize(sample.image, (150, 100), interpolation=cv2.INTER_LINEAR))


def test_random_resize_draws_every_size() -> None:
    step = RandomResize(((32, 100), (64, 200), (96, 300)))
    sizes = {step(marked(), rng(seed)).hw for seed in range(40)}
    assert sizes == {(32, 48), (64, 96), (96, 144)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {(32, 48), (40, 60)}),
        ({"random_range": True}, {(side, side * 3 // 2) for side in (32, 34, 36, 38, 40)}),
    ],
)
def test_random_range_draws_short_sides_between(options: dict[str, bool], expected: set[tuple[int, int]]) -> None:
    step = RandomResize(((32, 90), (40, 100)), **options)
    generator, sample = rng(), marked()
    sizes = {step(sample, generator).hw for _ in range(300)}
    if options:
        assert {height for height, _ in sizes} == set(range(32, 41))  # both ends are reached
        assert expected < sizes
    else:
        assert sizes == expected


def test_random_range_takes_the_larger_long_side() -> None:
    step = RandomResize(((64, 66), (60, 72)), random_range=True)  # a wide picture: its long side decides
    assert {step(marked(), rng(seed)).hw for seed in range(20)} == {(48, 72)}


@pytest.mark.parametrize("interp", range(5))
def test_interpolations_of_the_picture(interp: int) -> None:
    sample = marked()
    resized = resize_sample(sample, (100, 150), interp)
    np.testing.assert_array_equal(resized.image, cv2.resize(sample.image, (150, 100), interpolation=interp))
    linear = resize_sample(sample, (100, 150))
    for shape, expected in zip(resized.shapes, linear.shapes, strict=True):
        padded_hw = (128, 160)
        np.testing.assert_array_equal(
            shape.rasterize((100, 150), padded_hw).mask, expected.rasterize((100, 150), padded_hw).mask
        )
    np.testing.assert_array_equal(Resize((100, 150), interp=interp)(sample, rng()).image, resized.image)


def test_random_interpolation_draws_all_five() -> None:
    image = rng().integers(0, 256, (30, 30, 3), dtype=np.uint8)
    sample = Sample.of_image(image)
    step = RandomResize(((20, 20),), random_interp=True)
    found = {step(sample, rng(seed)).image.tobytes() for seed in range(60)}
    assert found == {cv2.resize(image, (20, 20), interpolation=interp).tobytes() for interp in INTERPOLATIONS}
    assert len(found) == 5


@pytest.mark.parametrize(
    "steps",
    [
        (RandomFlip(1.0),),
        (RandomFlip(0.0, 1.0),),
        (RandomFlip(1.0, 1.0),),
        (RandomRotate90(1.0),),
        (RandomRotate90(1.0), RandomRotate90(1.0), RandomRotate90(1.0)),
        (RandomFlip(1.0), RandomRotate90(1.0)),
        (RandomFlip(1.0, 1.0), RandomRotate90(1.0)),
        (flip,),
        (transpose,),
    ],
)
@pytest.mark.parametrize("hw", [(64, 96), (57, 45)])
def test_moves_keep_picture_mask_and_box_together(
    steps: tuple[Callable[..., Sample], ...], hw: tuple[int, int]
) -> None:
    sample = marked(hw)
    for step in steps:
        sample = step(sample) if step in (flip, transpose) else step(sample, rng())
    check_alignment(sample)


def test_the_quarter_turn_is_anticlockwise() -> None:
    turned = RandomRotate90(1.0)(marked(), rng())
    np.testing.assert_array_equal(turned.image, np.rot90(marked().image))


def test_all_eight_positions_are_reached() -> None:
    steps = (RandomFlip(0.5, 0.5), RandomRotate90(0.5))
    seen = set()
    for seed in range(80):
        generator, sample = rng(seed), marked((64, 64))
        for step in steps:
            sample = step(sample, generator)
        seen.add(sample.image.tobytes())
    original = marked((64, 64)).image
    expected = {np.rot90(side, turns).tobytes() for side in (original, original[:, ::-1]) for turns in range(4)}
    assert seen == expected
    assert len(seen) == 8


@pytest.mark.parametrize("step", [RandomFlip(0.0, 0.0), RandomRotate90(0.0), Resize((64, 96))])
def test_nothing_changes_where_nothing_is_to_do(step: Transform) -> None:
    sample = marked()
    assert step(sample, rng()) is sample


@pytest.mark.parametrize("step", [RandomFlip(1.0, 1.0), RandomRotate90(1.0), Resize((32, 48))])
def test_transforms_do_not_change_their_input(step: Transform) -> None:
    sample = marked()
    step(sample, rng())
    np.testing.assert_array_equal(sample.image, marked().image)
    np.testing.assert_array_equal(sample.boxes, marked().boxes)


@pytest.mark.parametrize("step", [RandomFlip(1.0, 1.0), RandomRotate90(1.0), Resize((32, 48))])
def test_a_picture_without_objects(step: Transform) -> None:
    sample = step(Sample.of_image(np.zeros((64, 80, 3), np.uint8)), rng())
    batch = collate([sample], with_targets=True)
    assert len(batch.targets[0]) == 0
    assert batch.targets[0].masks.shape[1:] == (batch.images.shape[2] // 4, batch.images.shape[3] // 4)


def test_masks_stay_on_their_object_through_a_whole_list() -> None:
    steps = build_transforms(
        [
            ("RandomDistort", {"brightness": (0.8, 1.2, 0.0), "hue": (-9.0, 9.0, 0.5)}),
            ("RandomCrop", {"allow_no_crop": False}),
            ("RandomResize", {"target_size": ((96, 160), (160, 224)), "random_range": True}),
            ("RandomFlip", {"vertical_prob": 0.5}),
            ("RandomRotate90", {}),
        ]
    )
    cropped = 0
    for seed in range(60):
        sample, generator = marked(), rng(seed)
        for step in steps:
            sample = step(sample, generator)
        padded_hw = (-(-sample.hw[0] // 32) * 32, -(-sample.hw[1] // 32) * 32)
        level = sample.image[:, :, 0].astype(int)
        halfway = (level.max() + level.min()) / 2  # distorted red is not 255
        red = Bitmap.of((level > halfway).astype(np.uint8)).rasterize(sample.hw, padded_hw)
        assert len(sample.shapes) == len(sample.boxes) == len(sample.labels) == 2
        for shape, (x0, y0, x1, y1) in zip(sample.shapes, sample.boxes, strict=True):
            target = shape.rasterize(sample.hw, padded_hw)
            # Scaled bitmaps are off by up to half an old pixel, as everywhere.
            least = 0.8 if isinstance(shape, Polygons) else 0.5
            assert (target.mask & red.mask).sum() > least * (target.mask | red.mask).sum()
            rows, columns = np.nonzero(target.mask)  # the box holds the mask, to a cell
            assert y0 <= (rows.min() + 1) * 4
            assert x0 <= (columns.min() + 1) * 4
            assert y1 >= rows.max() * 4
            assert x1 >= columns.max() * 4
        cropped += sample.hw not in {(96, 144), (144, 96)}
    assert cropped > 30


def test_table_of_names() -> None:
    assert list(TRANSFORMS) == sorted(TRANSFORMS)
    steps = build_transforms([("Resize", {"target_size": (8, 9)}), ("RandomFlip", {"prob": 0.25})])
    assert steps == (Resize((8, 9)), RandomFlip(0.25))


@pytest.mark.parametrize("hw", [(1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize(
    "step", [RandomFlip(1.0), RandomFlip(0.0, 1.0), RandomFlip(1.0, 1.0), RandomRotate90(1.0)], ids=repr
)
def test_pictures_of_one_row_or_column_reach_a_batch(step: Transform, hw: tuple[int, int]) -> None:
    image = np.arange(hw[0] * hw[1] * 3, dtype=np.uint8).reshape(*hw, 3)
    turned = step(Sample.of_image(image), rng())
    assert sorted(turned.image.flatten()) == sorted(image.flatten())
    batch = collate([turned], with_targets=False)
    assert batch.images.shape == (1, 3, 32, 32)


def test_flipping_copies_no_pixel_and_changes_none() -> None:
    sample = marked()
    before = sample.image.copy()
    flipped = flip(sample)
    assert np.shares_memory(flipped.image, sample.image)
    np.testing.assert_array_equal(flipped.image, before[:, ::-1])
    turned = transpose(flipped)
    assert not np.shares_memory(turned.image, sample.image)
    np.testing.assert_array_equal(turned.image, before[:, ::-1].transpose(1, 0, 2))
    np.testing.assert_array_equal(sample.image, before)
