import numpy as np
import pytest

from solov2.crumbs import without_crumbs
from solov2.structures import Instances

ROWS = ("##....#", "##.....", "......#", ".......", "...##..")


def mask(rows: tuple[str, ...]) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def found(*rows: tuple[str, ...], at: tuple[int, int] = (0, 0)) -> Instances:
    crops = tuple(mask(row) for row in rows)
    left, top = at
    return Instances(
        original_hw=(20, 30),
        labels=np.arange(len(crops)),
        scores=np.linspace(0.9, 0.5, len(crops), dtype=np.float32),
        boxes=np.array([(left, top, left + c.shape[1], top + c.shape[0]) for c in crops], np.float32).reshape(-1, 4),
        crops=crops,
    )


@pytest.mark.parametrize(
    ("least_part", "expected", "box"),
    [
        (0.0, ROWS, (5, 3, 12, 8)),
        (0.25, ROWS, (5, 3, 12, 8)),  # a single pixel is a quarter of the largest part, not less
        (0.3, ("##...", "##...", ".....", ".....", "...##"), (5, 3, 10, 8)),
        (0.6, ("##", "##"), (5, 3, 7, 5)),
        (1.0, ("##", "##"), (5, 3, 7, 5)),
    ],
)
def test_by_hand(least_part: float, expected: tuple[str, ...], box: tuple[int, ...]) -> None:
    swept = without_crumbs(found(ROWS, at=(5, 3)), least_part)
    assert np.array_equal(swept.crops[0], mask(expected))
    assert swept.boxes[0].tolist() == list(box)


def test_equal_parts_stay_and_corners_connect() -> None:
    rows = ("#..#", ".#..", "...#")
    assert np.array_equal(without_crumbs(found(rows), 0.5).crops[0], mask(rows))
    assert np.array_equal(without_crumbs(found(rows), 0.6).crops[0], mask(("#.", ".#")))


def test_the_rest_stays() -> None:
    before = found(("#",), ROWS)
    after = without_crumbs(before, 0.6)
    assert after.crops[0] is before.crops[0]
    assert after.labels is before.labels
    assert after.scores is before.scores
    assert before.crops[1].shape == (5, 7)


def test_nothing_found_and_empty_masks() -> None:
    assert len(without_crumbs(found(), 0.5)) == 0
    empty = found(("#",))
    nothing = Instances(
        empty.original_hw, empty.labels, empty.scores, np.zeros((1, 4), np.float32), (np.zeros((0, 0), bool),)
    )
    assert without_crumbs(nothing, 0.5).crops[0].shape == (0, 0)
