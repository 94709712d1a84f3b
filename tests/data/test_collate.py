from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from solov2.data.collate import collate, normalize
from solov2.data.shapes import Bitmap
from solov2.data.transforms import Resize, Sample, flip, resize_sample
from solov2.structures import Frame

PREP = {
    name.removeprefix("prep/"): array
    for name, array in np.load(Path(__file__).parents[1] / "parity" / "components.npz").items()
    if name.startswith("prep/")
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_LEVEL = 1 / 255 / min(STD)
"""In normalised units, of the channel with the smallest deviation: 0.0175."""


def prepared() -> Sample:
    """The reference's picture at the reference's size."""
    height, width = (int(side) for side in PREP["im_shape"])
    return resize_sample(Sample.of_image(PREP["image_u8"]), (height, width))


def test_training_order_equals_the_reference() -> None:
    batch = collate([prepared()], with_targets=False)
    found = normalize(batch.images, batch.frames, MEAN, STD)[0].numpy()
    np.testing.assert_allclose(found, PREP["train_out"], atol=1e-5)


def test_evaluation_order_differs_by_rounding_only() -> None:
    # Found: 0.0132 at most and 0.0040 on average. Normalising first keeps fractions of a grey level.
    batch = collate([prepared()], with_targets=False)
    found = normalize(batch.images, batch.frames, MEAN, STD)[0].numpy()
    difference = np.abs(found - PREP["eval_out"])
    assert 1e-3 < difference.max() < 0.0135
    assert difference.mean() < 0.0045


def test_rounding_of_a_resize_is_below_a_grey_level() -> None:
    assert GREY_LEVEL < 0.018  # what the documentation of normalize promises
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(60):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        new_hw = (int(rng.integers(1, 120)), int(rng.integers(1, 120)))
        exact = cv2.resize(image.astype(np.float32), new_hw[::-1], interpolation=cv2.INTER_LINEAR).reshape(*new_hw, 3)
        worst = max(worst, np.abs(resize_sample(Sample.of_image(image), new_hw).image - exact).max())
    assert 0.5 < worst < 1


def test_masks_follow_as_in_the_reference() -> None:
    height, width = (int(side) for side in PREP["im_shape"])
    for before, after in zip(PREP["gt_segm_in"], PREP["gt_segm_out"], strict=True):
        hw = (before.shape[0], before.shape[1])
        bitmap = Bitmap.of(before).resized(hw, (height, width))
        canvas = np.zeros_like(after)
        rows, columns = bitmap.pixels.shape
        canvas[bitmap.top : bitmap.top + rows, bitmap.left : bitmap.left + columns] = bitmap.pixels
        np.testing.assert_array_equal(canvas, after)


def picture(height: int, width: int, value: int = 200) -> Sample:
    return Sample.of_image(np.full((height, width, 3), value, np.uint8), image_id=height, name=f"{height}x{width}")


@pytest.mark.parametrize(
    ("sizes", "stride", "expected"),
    [
        ([(32, 32)], 32, (32, 32)),
        ([(1, 1)], 32, (32, 32)),
        ([(33, 64)], 32, (64, 64)),
        ([(20, 90), (70, 10)], 32, (96, 96)),
        ([(20, 90)], 64, (64, 128)),
    ],
)
def test_padding_sizes(sizes: list[tuple[int, int]], stride: int, expected: tuple[int, int]) -> None:
    batch = collate([picture(*size) for size in sizes], with_targets=False, pad_stride=stride)
    assert batch.images.shape == (len(sizes), 3, *expected)
    assert batch.images.dtype == torch.uint8
    assert batch.frames == tuple(Frame(size, size, expected) for size in sizes)
    assert batch.image_ids == tuple(height for height, _ in sizes)
    assert batch.names == tuple(f"{height}x{width}" for height, width in sizes)
    assert batch.targets == ()
    assert len(batch) == len(sizes)


def test_padding_is_exactly_zero_after_normalising() -> None:
    batch = collate([picture(20, 90), picture(70, 10)], with_targets=False)
    images = normalize(batch.images, batch.frames, MEAN, STD)
    for image, (height, width) in zip(images, [(20, 90), (70, 10)], strict=True):
        assert (image[:, :height, :width] != 0).all()
        assert image[:, height:].abs().max() == 0
        assert image[:, :, width:].abs().max() == 0
    assert images.dtype == torch.float32


def test_normalising_by_hand() -> None:
    image = torch.tensor([0, 128, 255], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32)
    found = normalize(image, [Frame((32, 32), (32, 32), (32, 32))], MEAN, STD)[0, :, 0, 0]
    expected = [(value / 255 - mean) / std for value, mean, std in zip((0, 128, 255), MEAN, STD, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_channels_are_rgb_in_front() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :, 0] = 7
    batch = collate([Sample.of_image(image)], with_targets=False)
    assert batch.images.amax(dim=(0, 2, 3)).tolist() == [7, 0, 0]


def test_the_frame_remembers_the_size_as_read() -> None:
    sample = Resize((64, 96))(picture(100, 3000), np.random.default_rng(0))
    (frame,) = collate([sample], with_targets=False).frames
    assert frame == Frame((100, 3000), (3, 96), (32, 96))


def test_targets_of_a_batch_share_its_padding() -> None:
    mask = np.zeros((20, 90), np.uint8)
    mask[4:12, 8:40] = 1
    with_object = Sample(
        image=np.zeros((20, 90, 3), np.uint8),
        original_hw=(20, 90),
        image_id=1,
        name="a",
        labels=np.array([1]),
        boxes=np.array([[8.0, 4.0, 40.0, 12.0]]),
        shapes=(Bitmap.of(mask),),
    )
    first, second = collate([with_object, picture(70, 10)], with_targets=True).targets
    assert first.masks.shape == (1, 24, 24)
    assert first.masks.sum() == 2 * 8
    assert first.labels.tolist() == [1]
    assert first.centers.tolist() == [[7.5, 23.5]]
    assert first.boxes.tolist() == [[8, 4, 40, 12]]
    assert second.masks.shape == (0, 24, 24)
    assert (len(first), len(second)) == (1, 0)
    assert (second.centers.shape, second.boxes.shape) == ((0, 2), (0, 4))
    assert (first.masks.dtype, first.labels.dtype, first.centers.dtype) == (torch.uint8, torch.int64, torch.float64)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (32, 32), (33, 47)])
def test_flipped_pictures_are_laid_out(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    plain, flipped = (Sample.of_image(rng.integers(0, 256, (*size, 3), np.uint8)) for _ in range(2))
    batch = collate([plain, flip(flipped), picture(40, 50)], with_targets=False).images.permute(0, 2, 3, 1).numpy()
    height, width = size
    np.testing.assert_array_equal(batch[0, :height, :width], plain.image)
    np.testing.assert_array_equal(batch[1, :height, :width], flipped.image[:, ::-1])
    for image in batch[:2]:
        assert not image[height:].any()
        assert not image[:, width:].any()
