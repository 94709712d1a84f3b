"""Scores as probabilities: the regression, the curve, and what it leaves as it was."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import solov2
from solov2.coco_metrics import Tally, ap_of, calibrate, calibrated, read_ground_truth
from solov2.coco_metrics.calibration import (
    LEAST_SLOPE,
    MOST_KNOTS,
    Block,
    Knots,
    fit_knots,
    pool_violators,
    thin_out,
    with_calibration,
)
from solov2.errors import DatasetError
from solov2.opening import OpenedWeights, convert, open_weights, write_calibrated
from solov2.predict import predictor_of

from .conftest import noise_picture
from .test_coco_metrics import random_scene, rectangle, result, scene

KNOTS: Knots = ((0.0, 0.0), (0.2, 0.1), (0.6, 0.8), (1.0, 0.9))


def rows(blocks: list[Block]) -> list[tuple[float, float, float]]:
    return [(block.count, block.right, block.score_sum) for block in blocks]


def scored(shares: list[float], counts: list[int]) -> list[Block]:
    return [Block(n, share * n, n * index / 10) for index, (share, n) in enumerate(zip(shares, counts, strict=True))]


def test_neighbours_that_fall_are_pooled() -> None:
    """By hand: 1 of 1 before 1 of 3 makes 2 of 4; 1 of 2 is no more than that, and joins them; 3 of 3 stays."""
    blocks = [Block(2, 0, 0.2), Block(1, 1, 0.2), Block(3, 1, 0.9), Block(2, 1, 0.8), Block(3, 3, 2.7)]
    found = pool_violators(blocks)
    assert [(block.count, block.right) for block in found] == [(2, 0), (6, 3), (3, 3)]
    assert [block.value for block in found] == [0, 0.5, 1]
    assert [block.score for block in found] == pytest.approx([0.1, 1.9 / 6, 0.9])
    assert pool_violators([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_pooling_is_the_best_rising_fit(seed: int) -> None:
    """Against all ways to cut the sequence into runs whose means do not fall."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 5, 8)
    values = generator.integers(0, counts + 1) / counts

    def fit(cuts: tuple[int, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        runs = itertools.pairwise((0, *cuts, 8))
        means = [(np.average(values[a:b], weights=counts[a:b]), b - a) for a, b in runs]
        return np.concatenate([np.full(length, mean) for mean, length in means])

    every = [fit(cuts) for number in range(8) for cuts in itertools.combinations(range(1, 8), number)]
    rising = [each for each in every if (np.diff(each) >= -1e-12).all()]
    best = min(float(np.sum(counts * (each - values) ** 2)) for each in rising)
    blocks = pool_violators(Block(int(n), float(v * n), 0.0) for n, v in zip(counts, values, strict=True))
    assert all(a.value < b.value for a, b in itertools.pairwise(blocks))
    # Each position's value, by the block that its detections went into.
    block_of = np.searchsorted(np.cumsum([block.count for block in blocks]), np.cumsum(counts) - 0.5)
    found = np.array([block.value for block in blocks])[block_of]
    assert float(np.sum(counts * (found - values) ** 2)) == pytest.approx(best, abs=1e-12)


def test_thinning_costs_little() -> None:
    blocks = scored([0.1, 0.5, 0.52, 0.9], [10, 10, 10, 10])
    thinned = thin_out(blocks, 3)
    assert rows(thinned) == [rows(blocks)[0], pytest.approx((20, 10.2, 3.0)), rows(blocks)[3]]
    # Of equal distances, that with few detections.
    assert [block.count for block in thin_out(scored([0.1, 0.5, 0.9], [10, 10, 1]), 2)] == [10, 11]
    assert rows(thin_out(blocks, 9)) == rows(blocks)


def test_knots_of_two_blocks() -> None:
    """Three wrong at 0.1 become 1/5, three of four right at 0.5 become 4/6; 1.0 is halfway from there to 1."""
    scores = np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5])
    knots = fit_knots(scores, np.array([0, 0, 0, 1, 1, 0, 1], bool))
    values = [0, 1 / 5, 4 / 6, 5 / 6]
    raws = [0, 0.1, 0.5, 1]
    assert [raw for raw, _ in knots] == pytest.approx(raws)
    expected = [(1 - LEAST_SLOPE) * value + LEAST_SLOPE * raw for raw, value in zip(raws, values, strict=True)]
    assert [value for _, value in knots] == pytest.approx(expected)


def test_a_few_right_ones_at_the_top_make_no_certainty() -> None:
    """Two right of two would be 1.0; smoothed they are no better than the hundred below, and join them."""
    scores = np.array([0.3] * 100 + [0.8] * 100 + [0.95] * 2)
    right = np.array([False] * 100 + [True] * 90 + [False] * 10 + [True] * 2)
    knots = fit_knots(scores, right)
    assert calibrated([0.95], knots)[0] < 0.93
    assert knots[-1] == (1.0, pytest.approx((1 + 94 / 106) / 2, abs=0.01))
    assert len(knots) == 4


@pytest.mark.parametrize("count", [1, 5, 300, 3000])
@pytest.mark.parametrize("kind", ["random", "perfect", "wrong", "upside down", "one score", "ends"])
def test_knots_always_rise(kind: str, count: int) -> None:
    generator = np.random.default_rng(count)
    scores = generator.random(count)
    right = generator.random(count) < scores**2
    if kind in ("perfect", "wrong"):
        right = np.full(count, kind == "perfect")
    elif kind == "upside down":
        right = generator.random(count) > scores
    elif kind == "one score":
        scores = np.full(count, 0.25)
    elif kind == "ends":
        scores = generator.integers(0, 2, count).astype(float)
    knots = np.array(fit_knots(scores, right))
    assert 2 <= len(knots) <= MOST_KNOTS
    assert (np.diff(knots, axis=0) > 0).all()
    assert knots[0].tolist() == [0, 0]
    assert knots[-1][0] == 1
    assert knots[-1][1] < 1
    slopes = np.diff(knots[:, 1]) / np.diff(knots[:, 0])
    assert slopes.min() >= LEAST_SLOPE * (1 - 1e-9)


def test_calibrated_scores() -> None:
    found = calibrated(np.float32([0, 0.1, 0.2, 0.4, 1]), KNOTS)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([0, 0.05, 0.1, 0.45, 0.9])
    assert calibrated(np.zeros(0, np.float32), KNOTS).shape == (0,)


def test_scores_that_are_too_high_come_down() -> None:
    """Right as often as the score's square says, the error nearly goes away."""
    generator = np.random.default_rng(0)
    scores = np.float32(generator.random(4000))
    right = generator.random(4000) < scores.astype(float) ** 2
    knots = fit_knots(scores.astype(float), right)
    raw = np.linspace(0, 1, 101)
    assert np.abs(calibrated(raw, knots) - raw**2).mean() < 0.02 < np.abs(raw - raw**2).mean() / 5


@pytest.mark.parametrize("ties", [False, True])
def test_order_and_ap_stay(ties: bool) -> None:
    for seed in range(3):
        truth, results = random_scene(seed, crowds=0.2, detections=60, ties=ties)
        tally = Tally(read_ground_truth(truth))
        tally.add(results)
        found = calibrate(tally)
        changed = with_calibration(tally, found.knots)
        assert changed.table["score"].tolist() != tally.table["score"].tolist()
        assert ap_of(changed, 100).stats == pytest.approx(ap_of(tally, 100).stats, abs=1e-9)
        raw, new = tally.table["score"], changed.table["score"]
        assert np.array_equal(np.argsort(raw, kind="stable"), np.argsort(new, kind="stable"))
        assert found.error_after < found.error_before
        assert found.detections == np.count_nonzero(tally.table["ignored"][:, 0] & 1 == 0)


def test_threshold_is_one_of_calibrated_scores() -> None:
    """Raw scores say 0.04 and 0.06: below every threshold; calibrated, the better half is right."""
    places = [rectangle(y, 4 * x, y + 3, 4 * x + 3) for y in (0, 5) for x in range(5)]
    truth = scene(*[(place, {}) for place in places])
    wrong = rectangle(9, 0, 10, 20)
    results = [result(place, 0.06) for place in places] + [result(wrong, 0.04) for _ in places]
    tally = Tally(read_ground_truth(truth))
    tally.add(results)
    found = calibrate(tally)
    assert (found.detections, found.right) == (20, 10)
    assert found.score_threshold is not None
    low, high = calibrated([0.04, 0.06], found.knots)
    assert low < found.score_threshold <= high
    assert high == pytest.approx(11 / 12, abs=0.01)


def test_few_detections_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    place = rectangle(0, 0, 5, 5)
    tally = Tally(read_ground_truth(scene((place, {}))))
    tally.add([result(place)])
    calibrate(tally)
    assert "calibrated with 1 detections; more pictures" in caplog.text


def test_nothing_right() -> None:
    tally = Tally(read_ground_truth(scene((rectangle(0, 0, 5, 5), {}))))
    with pytest.raises(DatasetError, match="of 0 detections none is right: there is nothing to calibrate"):
        calibrate(tally)
    tally.add([result(rectangle(9, 9, 10, 10))])
    with pytest.raises(DatasetError, match="of 1 detections none is right"):
        calibrate(tally)


@pytest.fixture(scope="module")
def opened(tiny_weights: Path) -> OpenedWeights:
    return open_weights(tiny_weights)


def test_a_predictor_with_calibrated_weights(opened: OpenedWeights, tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "calibrated.safetensors"
    raw = predictor_of(opened, "cpu").predict(noise_picture(40, 56), 0.0)
    assert len(raw) > 2
    knots = ((0.0, 0.0), (float(raw.scores[1]), 0.5), (1.0, 0.7))
    write_calibrated(opened, path, knots, 0.5)
    predictor = solov2.load(path, device="cpu")
    assert (predictor.calibration, predictor.score_threshold) == (knots, 0.5)
    everything = predictor.predict(noise_picture(40, 56), 0.0)
    assert everything.scores.dtype == np.float32
    assert everything.scores.tolist() == calibrated(raw.scores, knots).tolist()
    assert (everything.masks == raw.masks).all()
    assert len(predictor.predict(noise_picture(40, 56))) == 2  # those at 0.5 and above
    # Converted, also with half the size, weights keep what they know of their scores.
    half = convert(path, tmp_path / "half.safetensors", half=True).weights
    assert (half.calibration, half.score_threshold) == (knots, 0.5)
    assert solov2.load(tmp_path / "half.safetensors", device="cpu").calibration == knots
    assert solov2.load(tiny_weights, device="cpu").calibration == ()


def test_a_calibrated_copy_replaces_nothing(opened: OpenedWeights, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(solov2.WeightsError, match="is there already; give another name, or --force"):
        write_calibrated(opened, path, KNOTS, None)
    assert path.read_bytes() == b"precious"
    write_calibrated(opened, path, KNOTS, None, overwrite=True)
    assert open_weights(path).weights.calibration == KNOTS
