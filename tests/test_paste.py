import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from solov2 import paste
from solov2.paste import paste_mask, paste_region
from solov2.structures import Frame

FRAMES = [
    Frame((64, 96), (64, 96), (64, 96)),  # nothing to do but the first step
    Frame((61, 83), (61, 83), (64, 96)),  # padded only
    Frame((122, 166), (61, 83), (64, 96)),  # enlarged
    Frame((37, 50), (61, 83), (64, 96)),  # shrunk, odd sizes
    Frame((1, 90), (1, 83), (32, 96)),  # one row
    Frame((90, 1), (83, 1), (96, 32)),
    Frame((1, 1), (32, 32), (32, 32)),
    Frame((7, 300), (3, 127), (32, 128)),  # extreme aspect
    Frame((300, 7), (127, 3), (128, 32)),
    Frame((5, 5), (64, 64), (64, 64)),  # shrunk thirteenfold
    Frame((200, 230), (20, 23), (32, 32)),  # enlarged tenfold
    Frame((33, 65), (32, 64), (32, 64)),
]


def ids(frame: Frame) -> str:
    return "{}x{} from {}x{}".format(*frame.original_hw, *frame.resized_hw)


def full(probs: Tensor, frame: Frame, threshold: float = 0.5) -> npt.NDArray[np.bool_]:
    return paste_region(probs, frame, (0, frame.original_hw[0]), (0, frame.original_hw[1]), threshold)


def pasted(probs: Tensor, frame: Frame, threshold: float = 0.5) -> npt.NDArray[np.bool_]:
    (x0, y0, x1, y1), crop = paste_mask(probs, frame, threshold)
    mask = np.zeros(frame.original_hw, bool)
    mask[y0:y1, x0:x1] = crop
    return mask


def grid_of(frame: Frame) -> tuple[int, int]:
    return frame.padded_hw[0] // 4, frame.padded_hw[1] // 4


def random_masks(grid_hw: tuple[int, int], seed: int) -> list[Tensor]:
    """Blobs at random places, single cells, whole rows and columns, noise and everything."""
    generator = torch.Generator().manual_seed(seed)
    height, width = grid_hw
    noise = torch.rand(height, width, generator=generator)
    masks = [noise, torch.full(grid_hw, 0.9), 0.4 + 0.2 * noise]
    for _ in range(12):
        y0, y1 = sorted(torch.randint(0, height + 1, (2,), generator=generator).tolist())
        x0, x1 = sorted(torch.randint(0, width + 1, (2,), generator=generator).tolist())
        blob = torch.rand(height, width, generator=generator) * 0.3
        blob[y0 : y1 + 1, x0 : x1 + 1] += 0.6
        masks.append(blob)
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 2)):
        single = torch.zeros(height, width)
        single[y, x] = 1.0
        masks.append(single)
    border = torch.zeros(height, width)
    border[:, 0] = border[-1] = 0.8
    return [*masks, border]


@pytest.mark.parametrize("frame", FRAMES, ids=ids)
def test_the_crop_is_what_the_whole_picture_gives(frame: Frame) -> None:
    for threshold in (0.5, 0.05, 0.85):
        for probs in random_masks(grid_of(frame), seed=3):
            assert np.array_equal(pasted(probs, frame, threshold), full(probs, frame, threshold))


@pytest.mark.parametrize("frame", FRAMES, ids=ids)
def test_boxes_are_tight(frame: Frame) -> None:
    for probs in random_masks(grid_of(frame), seed=4):
        (x0, y0, x1, y1), crop = paste_mask(probs, frame)
        assert crop.shape == (y1 - y0, x1 - x0)
        if crop.size:
            assert crop[0].any()
            assert crop[-1].any()
            assert crop[:, 0].any()
            assert crop[:, -1].any()
        else:
            assert (x0, y0, x1, y1) == (0, 0, 0, 0)


@pytest.mark.parametrize("frame", FRAMES, ids=ids)
def test_agrees_with_two_interpolations(frame: Frame) -> None:
    (height, width), threshold = frame.resized_hw, 0.5
    for probs in random_masks(grid_of(frame), seed=5):
        # float64, as torch's float32 positions alone are off by 1e-5 of a pixel in large pictures
        whole = F.interpolate(probs.double()[None, None], frame.padded_hw, mode="bilinear", align_corners=False)
        resized = F.interpolate(whole[:, :, :height, :width], frame.original_hw, mode="bilinear", align_corners=False)[
            0, 0
        ].numpy()
        sure = np.abs(resized - threshold) > 1e-5
        assert sure.mean() > 0.9
        assert np.array_equal(full(probs, frame)[sure], (resized > threshold)[sure])


@pytest.mark.parametrize("frame", FRAMES, ids=ids)
def test_windows_are_cut_from_the_whole(frame: Frame) -> None:
    probs = torch.rand(grid_of(frame), generator=torch.Generator().manual_seed(6))
    height, width = frame.original_hw
    whole = full(probs, frame)
    for rows, columns in (((0, height), (width // 2, width)), ((height // 3, height), (0, 1)), ((0, 0), (0, width))):
        window = paste_region(probs, frame, rows, columns)
        assert np.array_equal(window, whole[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("frame", FRAMES, ids=ids)
def test_blocks_do_not_show(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = random_masks(grid_of(frame), seed=7)
    whole = [pasted(probs, frame) for probs in masks]
    monkeypatch.setattr(paste, "BLOCK_ELEMENTS", 100)  # a column or a few at a time
    for probs, expected in zip(masks, whole, strict=True):
        assert np.array_equal(pasted(probs, frame), expected)


@pytest.mark.parametrize("frame", FRAMES, ids=ids)
def test_by_the_plain_form(frame: Frame) -> None:
    """Every pixel of the picture, from weights of four taps along each axis, as it is written in textbooks."""
    for probs in random_masks(grid_of(frame), seed=9)[:8]:
        steps = zip(probs.shape, frame.padded_hw, frame.resized_hw, frame.original_hw, strict=True)
        rows, columns = (plain_steps(*sizes) for sizes in steps)
        values = (rows @ probs.double() @ columns.T).numpy()
        sure = np.abs(values - 0.5) > 1e-6
        assert np.array_equal(full(probs, frame)[sure], (values > 0.5)[sure])


def plain_steps(grid: int, padded: int, resized: int, original: int) -> Tensor:
    """Both steps as one matrix (original, grid), float64."""
    first, second = torch.zeros(padded, grid).double(), torch.zeros(original, padded).double()
    for matrix, size_in in ((first, grid), (second, resized)):
        for row in range(len(matrix)):
            position = max((row + 0.5) * size_in / len(matrix) - 0.5, 0.0)
            low = min(int(position), size_in - 1)
            matrix[row, low] += 1 - (position - low)
            matrix[row, min(low + 1, size_in - 1)] += position - low
    return second @ first


@pytest.mark.parametrize("value", [0.0, 0.5])  # the threshold must be exceeded
def test_empty_mask(value: float) -> None:
    box, crop = paste_mask(torch.full((8, 8), value), Frame((20, 20), (30, 30), (32, 32)))
    assert box == (0, 0, 0, 0)
    assert crop.shape == (0, 0)
    assert crop.dtype == bool


@pytest.mark.parametrize(
    ("where", "frame"),
    [
        ((7, slice(None)), Frame((40, 64), (20, 32), (32, 32))),
        ((slice(None), 7), Frame((32, 10), (32, 20), (32, 32))),
        ((7, 7), Frame((4, 4), (4, 4), (32, 32))),
        ((7, 7), Frame((500, 1), (20, 1), (32, 32))),
    ],
)
def test_mask_in_the_padding_only(where: tuple[int | slice, int | slice], frame: Frame) -> None:
    probs = torch.zeros(8, 8)
    probs[where] = 1.0
    box, crop = paste_mask(probs, frame)
    assert box == (0, 0, 0, 0)
    assert crop.shape == (0, 0)
    assert not full(probs, frame).any()


def test_a_thin_mask_may_vanish_when_the_picture_is_smaller() -> None:
    probs = torch.zeros(16, 16)
    probs[5, 5] = 0.6
    assert paste_mask(probs, Frame((4, 4), (64, 64), (64, 64)))[0] == (0, 0, 0, 0)


def test_by_hand() -> None:
    """Columns 0 1 of a 2-column grid reach 1 where the second cell weighs more."""
    probs = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    box, crop = paste_mask(probs, Frame((8, 8), (8, 8), (8, 8)))
    assert box == (4, 0, 8, 8)  # columns 0..7 get 0 0 .125 .375 .625 .875 1 1
    assert crop.all()
    assert paste_mask(probs, Frame((8, 8), (8, 8), (8, 8)), 0.1)[0] == (2, 0, 8, 8)
