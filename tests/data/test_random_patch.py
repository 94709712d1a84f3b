import numpy as np
import pytest

from solov2.data.sample import Sample
from solov2.data.transforms import RandomPatch

from .marked import check_alignment, marked, rng


@pytest.mark.parametrize(
    ("hw", "scale", "expected"),
    [
        ((200, 300), 2.0, (64, 96)),  # 32 by 48 pixels of it
        ((200, 300), 0.5, (64, 96)),
        ((20, 300), 2.0, (40, 96)),  # as high as the picture is
        ((20, 30), 2.0, (40, 60)),
        ((20, 30), 10.0, (64, 96)),
        ((3, 3), 0.1, (1, 1)),
    ],
)
def test_sizes(hw: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    sample = Sample.of_image(np.zeros((*hw, 3), np.uint8))
    assert RandomPatch((64, 96), (scale, scale))(sample, rng()).hw == expected


@pytest.mark.parametrize("hw", [(64, 96), (70, 100)])
def test_the_scale_is_one_of_pixels_whatever_the_pictures_size(hw: tuple[int, int]) -> None:
    """And masks and boxes stay on their object."""
    sample, seen = marked(hw), 0
    for seed in range(60):
        patch = RandomPatch((96, 96), (2.0, 2.0))(sample, rng(seed))
        assert patch.hw == (96, 96)
        if len(patch.shapes) and patch.boxes.min() > 0 and patch.boxes.max() < 96:  # all of it is in the patch
            check_alignment(patch, scale=2.0)
            assert (patch.boxes[0, 2:] - patch.boxes[0, :2]).tolist() == [48, 88]
            seen += 1
    assert seen >= 1


def test_every_place_is_drawn() -> None:
    rows = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None], (100, 100, 3))
    sample = Sample.of_image(np.ascontiguousarray(rows))
    tops = {int(RandomPatch((32, 32))(sample, np.random.default_rng(seed)).image[0, 0, 0]) for seed in range(400)}
    assert min(tops) == 0
    assert max(tops) == 68
    assert len(tops) > 55


def test_scales_are_drawn_evenly_in_their_logarithm() -> None:
    """A picture that is smaller than the patch shows the scale by its size."""
    sample = Sample.of_image(np.zeros((100, 100, 3), np.uint8))
    draws = [RandomPatch((1000, 1000), (0.5, 2.0))(sample, np.random.default_rng(s)).hw[0] / 100 for s in range(300)]
    assert 0.5 <= min(draws) < 0.53
    assert 1.9 < max(draws) <= 2.0
    assert np.mean(np.array(draws) < 1) == pytest.approx(0.5, abs=0.1)


def test_the_same_numbers_give_the_same_patch() -> None:
    transform, sample = RandomPatch((32, 32), (0.7, 1.4)), marked((64, 96))
    one, other = (transform(sample, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.boxes, other.boxes)
