import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from solov2.rle import compress, decompress, runs_of_crop

# pycocotools 2.0.11 hands numpy 2 an array without the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    ("crop", "origin_xy", "hw", "expected"),
    [
        ([[1]], (0, 0), (1, 1), [0, 1]),
        ([[1]], (1, 2), (4, 3), [6, 1, 5]),
        ([[1]], (2, 3), (4, 3), [11, 1]),  # the last pixel: no run of zeros follows
        ([[1, 1]], (0, 1), (3, 2), [1, 1, 2, 1, 1]),
        ([[1, 1], [1, 1]], (0, 0), (2, 3), [0, 4, 2]),  # as high as the picture: one run through both columns
        ([[1, 1], [1, 1]], (0, 0), (3, 2), [0, 2, 1, 2, 1]),
        ([[1, 1], [1, 1]], (0, 1), (3, 2), [1, 2, 1, 2]),  # at the bottom: the next column begins with a zero
        ([[1, 1], [0, 1], [1, 1]], (1, 0), (3, 3), [3, 1, 1, 4]),
        ([[0, 1], [1, 0]], (0, 0), (2, 2), [1, 2, 1]),
    ],
)
def test_runs_by_hand(
    crop: list[list[int]], origin_xy: tuple[int, int], hw: tuple[int, int], expected: list[int]
) -> None:
    assert runs_of_crop(np.array(crop, bool), origin_xy, hw).tolist() == expected


@pytest.mark.parametrize("shape", [(0, 0), (2, 0), (0, 3)])
def test_runs_of_nothing(shape: tuple[int, int]) -> None:
    assert runs_of_crop(np.zeros(shape, bool), (0, 0), (4, 5)).tolist() == [20]


def text_of(runs: list[int]) -> str:
    """What pycocotools makes of run lengths."""
    encoded = coco_mask.frPyObjects({"size": [sum(runs), 1], "counts": runs}, sum(runs), 1)
    return str(encoded["counts"].decode("ascii"))


@pytest.mark.parametrize(
    "runs",
    [
        [7],
        [0, 1],
        [15, 16, 17],
        [31, 32, 33, 34, 35, 36],
        [1000, 1, 1, 1000, 1, 1000],  # large differences of both signs
        [0, 511, 512, 513, 0, 16383, 16384, 1],
        [5, 5, 5, 5 + 15, 5 + 16, 4, 4],  # differences of -16..16, where one letter just suffices or does not
        [0, 1 << 24, 3, (1 << 24) + 1, 5],
    ],
    ids=str,
)
def test_text_equals_pycocotools(runs: list[int]) -> None:
    (text,) = compress([np.array(runs)])
    assert text == text_of(runs)
    assert decompress(text) == runs


def test_more_runs_than_pictures_have_pixels_in_common_use() -> None:
    runs = np.array([1, (1 << 33) - 5, 2, 3])
    (text,) = compress([runs])
    assert decompress(text) == runs.tolist()


def test_several_masks_do_not_mix() -> None:
    generator = np.random.default_rng(0)
    many: list[npt.NDArray[np.int64]] = [generator.integers(0, 5000, count) for count in (1, 2, 3, 4, 50, 1, 7)]
    assert compress(many) == [text_of(runs.tolist()) for runs in many]


def test_no_mask() -> None:
    assert compress([]) == []


@pytest.mark.parametrize("text", ["~", "\x10", "o", "oooooooo0"])
def test_damaged_text(text: str) -> None:
    assert decompress(text) is None
