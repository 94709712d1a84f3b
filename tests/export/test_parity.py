import numpy as np
import pytest

from solov2.export.parity import FLOAT32, HALF, Parity, compare, match
from solov2.structures import Instances


def square(x: int, y: int = 2, side: int = 8) -> np.ndarray:
    mask = np.zeros((24, 40), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def found(masks: list[np.ndarray], scores: list[float], labels: list[int] | None = None) -> Instances:
    return Instances.from_masks(np.stack(masks), labels or [0] * len(masks), scores)


TWO = found([square(0), square(20)], [0.9, 0.5])
NOTHING = Instances.empty((24, 40))


def test_match_takes_masks_and_labels_together() -> None:
    theirs = found([square(21), square(0), square(20)], [0.9, 0.8, 0.7], [0, 0, 1])
    assert match(TWO, theirs) == [(0, 1, 1.0), (1, 0, pytest.approx(7 / 9))]
    assert match(TWO, NOTHING) == match(NOTHING, TWO) == []
    assert match(TWO, found([square(5)], [0.9])) == []  # overlaps by 3 of 13 columns


def test_each_is_matched_once() -> None:
    assert match(found([square(0), square(0)], [0.9, 0.8]), found([square(0)], [0.9])) == [(0, 0, 1.0)]


def test_empty_masks_match_each_other() -> None:
    empty = found([np.zeros((24, 40), bool)], [0.5])
    assert match(empty, empty) == [(0, 0, 1.0)]
    assert match(empty, TWO) == []


def add(ours: Instances, theirs: Instances, *, cap: int = 100, tolerance: float = 1e-3) -> Parity:
    parity = Parity()
    parity.add(ours, theirs, 0.05, cap, tolerance)
    return parity


def test_differences_are_counted() -> None:
    parity = add(TWO, found([square(0), square(21)], [0.9, 0.52]))
    assert (parity.pictures, parity.matched, parity.unmatched) == (1, 2, 0)
    assert parity.least_iou == pytest.approx(7 / 9)
    assert parity.mean_iou == pytest.approx(8 / 9)
    assert parity.score_difference == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("ours", "theirs", "cap", "unmatched"),
    [
        (TWO, NOTHING, 100, 2),
        (NOTHING, TWO, 100, 2),
        (found([square(0)], [0.0505]), NOTHING, 100, 0),  # at the least score either side may be right
        (found([square(0)], [0.052]), NOTHING, 100, 1),
        (TWO, found([square(0), square(30)], [0.9, 0.5]), 2, 0),  # both full: the last one is anybody's
        (TWO, found([square(0), square(30)], [0.9, 0.5]), 3, 2),
    ],
)
def test_unmatched(ours: Instances, theirs: Instances, cap: int, unmatched: int) -> None:
    assert add(ours, theirs, cap=cap).unmatched == unmatched


def test_few_instances_prove_nothing() -> None:
    parity = add(TWO, TWO)
    assert parity.problems(FLOAT32) == ["only 2 instances matched in 1 pictures, 20 needed"]
    assert Parity().report(FLOAT32)["passed"] is False


def test_bounds() -> None:
    many = compare([TWO] * 10, lambda x: x, lambda x: x, least_score=0.05, cap=100, tolerance=1e-3)
    assert many.problems(FLOAT32) == []
    assert many.report(FLOAT32) == {
        "passed": True,
        "pictures": 10,
        "matched_instances": 20,
        "unmatched_instances": 0,
        "least_mask_iou": 1.0,
        "mean_mask_iou": 1.0,
        "largest_score_difference": 0.0,
        "bounds": {"least_iou": 0.999, "score_difference": 1e-3, "unmatched_share": 0.0},
    }
    many.add(TWO, found([square(0), square(21), square(30)], [0.9, 0.54, 0.4]), 0.05, 100, 1e-3)
    assert many.problems(FLOAT32) == [
        "least mask IoU 0.7778, at least 0.999 needed",
        "scores differ by up to 0.04000, at most 0.001 allowed",
        "1 instances found by one side alone",
    ]
    assert len(many.problems(HALF)) == 2
