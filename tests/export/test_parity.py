from collections.abc import Callable

import numpy as np
import pytest
import torch

from solov2.export.parity import FLOAT32, HALF, NUDGE, Nudged, Parity, compare, match
from solov2.paste import paste_instances
from solov2.structures import Frame, Instances


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
    assert [tuple(pair) for pair in match(TWO, theirs)] == [
        (0, 1, 1.0, pytest.approx(0.1)),
        (1, 0, pytest.approx(7 / 9), pytest.approx(0.4)),
    ]
    assert match(TWO, NOTHING) == match(NOTHING, TWO) == []
    assert match(TWO, found([square(5)], [0.9])) == []  # overlaps by 3 of 13 columns


def test_each_is_matched_once() -> None:
    assert match(found([square(0), square(0)], [0.9, 0.8]), found([square(0)], [0.9])) == [(0, 0, 1.0, 0.0)]


def test_equal_masks_are_told_apart_by_their_scores() -> None:
    """Rounding may change which of two candidates with one mask comes first."""
    pairs = match(found([square(0)] * 2, [0.9, 0.4]), found([square(0)] * 3, [0.95, 0.89, 0.41]))
    assert [(pair.i, pair.j) for pair in pairs] == [(0, 1), (1, 2)]


def test_empty_masks_match_each_other() -> None:
    empty = found([np.zeros((24, 40), bool)], [0.5])
    assert match(empty, empty) == [(0, 0, 1.0, 0.0)]
    assert match(found([np.zeros((24, 40), bool)] * 2, [0.5, 0.4]), empty) == [(0, 0, 1.0, 0.0)]
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
        "instances_at_threshold": 0,
        "pixels_at_threshold": 0,
        "outliers": 0,
        "bounds": {
            "least_iou": 0.999,
            "score_difference": 1e-3,
            "unmatched_share": 0.0,
            "threshold_share": 0.05,
            "outlier_share": 0.0,
        },
    }
    many.add(TWO, found([square(0), square(21), square(30)], [0.9, 0.54, 0.4]), 0.05, 100, 1e-3)
    assert many.problems(FLOAT32) == [
        "least mask IoU 0.7778, at least 0.999 needed",
        "scores differ by up to 0.04000, at most 0.001 allowed",
        "1 instances found by one side alone",
    ]
    assert len(many.problems(HALF)) == 2


@pytest.mark.parametrize(("pictures", "passes"), [(50, True), (49, False)])
def test_one_tie_in_a_hundred_may_be_decided_anew_with_16_bits(pictures: int, passes: bool) -> None:
    other = found([square(0), square(20)], [0.9, 0.2])
    parity = compare([TWO] * (pictures - 1), lambda x: x, lambda x: x, least_score=0.05, cap=100, tolerance=0.05)
    parity.add(TWO, other, 0.05, 100, 0.05)
    assert parity.report(HALF)["outliers"] == 1
    assert parity.problems(HALF) == ([] if passes else ["scores differ by up to 0.30000, at most 0.05 allowed"])
    assert parity.problems(FLOAT32) != []


# ---------------------------------------------------------------------------------- what hangs on the mask threshold

FRAME = Frame((24, 40), (24, 40), (24, 40))


def wavering(edge: float, score: float = 0.9) -> Callable[[float], Instances]:
    """A square of 8 by 8 pixels, and beside it a column whose probability is ``edge``, at any threshold."""
    probs = torch.zeros((1, 24, 40))
    probs[0, 2:10, :8] = 0.9
    probs[0, 2:10, 8] = edge
    return lambda threshold: paste_instances(probs, np.array([0]), np.array([score], np.float32), FRAME, threshold)


def moved(by: float, edge: float) -> Nudged:
    return wavering(edge)(0.5 - by), wavering(edge)(0.5 + by)


@pytest.mark.parametrize(
    ("ours", "theirs", "explained"),
    [
        (0.5 + NUDGE / 2, 0.5 - NUDGE / 2, True),
        (0.5 - NUDGE / 2, 0.5 + NUDGE / 2, True),
        (0.5 + 2 * NUDGE, 0.5 - NUDGE, False),  # PyTorch is sure of these pixels
        (0.4, 0.6, False),
    ],
)
def test_pixels_at_the_threshold(ours: float, theirs: float, explained: bool) -> None:
    parity = Parity()
    parity.add(wavering(ours)(0.5), wavering(theirs)(0.5), 0.05, 100, 1e-3, nudged=lambda: moved(NUDGE, ours))
    assert parity.least_iou == pytest.approx(64 / 72)  # what is there is reported, whatever its reason
    assert (parity.at_threshold, parity.pixels_at_threshold) == ((1, 8) if explained else (0, 0))
    assert any("least mask IoU 0.8889" in problem for problem in parity.problems(FLOAT32)) is not explained
    assert parity.report(FLOAT32)["pixels_at_threshold"] == parity.pixels_at_threshold


def test_a_pixel_too_many_is_none_of_the_threshold() -> None:
    theirs = wavering(0.5 + NUDGE / 2)(0.5)
    wrong = theirs.masks.copy()
    wrong[0, 20, 30] = True
    parity = Parity()
    ours = 0.5 - NUDGE / 2
    parity.add(wavering(ours)(0.5), found(list(wrong), [0.9]), 0.05, 100, 1e-3, nudged=lambda: moved(NUDGE, ours))
    assert parity.at_threshold == 0
    assert "least mask IoU" in parity.problems(FLOAT32)[1]


@pytest.mark.parametrize(("theirs", "explained"), [(0.505, True), (0.5205, True), (0.4985, False), (0.53, False)])
def test_scores_that_hang_on_the_threshold(theirs: float, explained: bool) -> None:
    """PyTorch itself gives 0.5 to 0.52; half a tolerance beyond that is as good."""
    ours = found([square(0)], [0.5])
    parity = Parity()
    nudged = ours, found([square(0)], [0.52])
    parity.add(ours, found([square(0)], [theirs]), 0.05, 100, 1e-3, nudged=lambda: nudged)
    assert parity.at_threshold == explained
    assert parity.score_difference == pytest.approx(abs(theirs - 0.5), abs=1e-6)
    assert any("scores differ" in problem for problem in parity.problems(FLOAT32)) is not explained


def test_instances_that_hang_on_the_threshold() -> None:
    """One whose mask is hardly large enough may be found by either side; one that PyTorch is sure of may not."""
    both, hardly = [square(0)], [square(0), square(20)]
    for ours, theirs in ((both, hardly), (hardly, both)):
        for nudged, explained in (((both, hardly), 1), ((ours, ours), 0)):
            parity = Parity()
            variants = tuple(found(masks, [0.9, 0.5][: len(masks)]) for masks in nudged)
            first, second = (found(masks, [0.9, 0.5][: len(masks)]) for masks in (ours, theirs))
            parity.add(first, second, 0.05, 100, 1e-3, nudged=lambda variants=variants: variants)
            assert (parity.at_threshold, parity.unmatched) == (explained, 1 - explained)


def test_pytorch_is_asked_again_only_where_there_is_doubt() -> None:
    def never(picture: Instances) -> Nudged:
        raise AssertionError(picture)

    compare([TWO], lambda x: x, lambda x: x, least_score=0.05, cap=100, tolerance=1e-3, nudged=never)
    with pytest.raises(AssertionError):
        compare([TWO], lambda x: x, lambda x: x[:1], least_score=0.05, cap=100, tolerance=1e-3, nudged=never)


def test_much_at_the_threshold_is_refused() -> None:
    ours = 0.5 + NUDGE / 2
    parity = compare(
        range(20),
        lambda _: wavering(ours)(0.5),
        lambda _: wavering(0.5 - NUDGE / 2)(0.5),
        least_score=0.05,
        cap=100,
        tolerance=1e-3,
        nudged=lambda _: moved(NUDGE, ours),
    )
    assert parity.problems(FLOAT32) == [
        "20 instances differ where PyTorch itself wavers at the mask threshold, at most 5% allowed"
    ]
