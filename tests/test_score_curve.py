import numpy as np
import pytest

from solov2.score_curve import calibrated, least_raw

CURVE = ((0.0, 0.0), (0.2, 0.05), (0.5, 0.6), (1.0, 0.9))


def test_straight_lines_between_knots() -> None:
    found = calibrated([0.0, 0.1, 0.2, 0.35, 1.0], CURVE)
    np.testing.assert_allclose(found, [0.0, 0.025, 0.05, 0.325, 0.9], atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.0, 0.0), (0.05, 0.2), (0.325, 0.35), (0.9, 1.0), (0.91, np.inf), (1.0, np.inf)]
)
def test_the_least_raw_score(threshold: float, expected: float) -> None:
    assert least_raw(threshold, CURVE) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_without_a_curve(threshold: float) -> None:
    assert least_raw(threshold, ()) == pytest.approx(threshold, abs=1e-5)
    assert least_raw(threshold, ()) < threshold


def test_nothing_that_reaches_the_threshold_is_below() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        count = int(generator.integers(2, 12))
        raw, values = np.sort(generator.random((2, count)), axis=1)
        raw[0], raw[-1] = 0.0, 1.0
        curve = tuple(zip(raw.tolist(), values.tolist(), strict=True))
        scores = np.sort(np.append(generator.random(500), raw)).astype(np.float32)
        for threshold in (*generator.random(5).tolist(), *values.tolist()):
            reaching = scores[calibrated(scores, curve) >= threshold]
            assert (reaching >= least_raw(threshold, curve)).all()
