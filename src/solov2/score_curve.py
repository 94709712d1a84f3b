"""The curve of a calibrated model: raw scores and the probabilities of being right that stand for them.

It is made in :mod:`solov2.coco_metrics.calibration`, and used wherever a model predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Knots = Sequence[tuple[float, float]]
"""Raw and calibrated score, both rising strictly, from raw 0 to raw 1."""

ROUNDING = 1e-6
"""More than a score changes by being rounded to float32."""


def calibrated(scores: npt.ArrayLike, knots: Knots) -> npt.NDArray[np.float32]:
    """Calibrated scores, float32 of the shape of the raw ones.

    Args:
        scores: raw, 0..1.
        knots: the curve.
    """
    raw, values = zip(*knots, strict=True)
    return np.asarray(np.interp(np.asarray(scores, np.float64), raw, values), np.float32)


def least_raw(threshold: float, knots: Knots) -> float:
    """A raw score below which no calibrated score reaches a threshold, to drop what is hopeless before it costs time.

    It is lower by a little more than rounding: who needs the bound itself compares calibrated scores.

    Args:
        threshold: of calibrated scores.
        knots: the curve; empty where scores are not calibrated.
    """
    if not knots:
        return threshold - ROUNDING
    raw, values = zip(*knots, strict=True)
    if threshold > values[-1] + ROUNDING:
        return np.inf
    return float(np.interp(threshold - ROUNDING, values, raw)) - ROUNDING
