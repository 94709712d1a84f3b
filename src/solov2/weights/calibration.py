"""The calibration of scores that a weights file may hold, checked when it is read."""

from __future__ import annotations

import itertools
import reprlib
from typing import Any

from solov2.errors import WeightsError

Knots = tuple[tuple[float, float], ...]
"""Raw score and the probability of being right that stands for it, 0..1."""


def read_calibration(values: Any) -> Knots:
    """Pairs of raw and calibrated score that leave scores in their order.

    Args:
        values: plain values of a file's metadata; empty where there is no calibration.

    Raises:
        WeightsError: if they are anything else.
    """
    if isinstance(values, list | tuple) and not values:
        return ()
    try:
        pairs = tuple((_score(raw), _score(value)) for raw, value in values)
    except (TypeError, ValueError):
        pairs = ()
    rising = all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))
    if len(pairs) < 2 or not rising or (pairs[0][0], pairs[-1][0]) != (0, 1):
        raise WeightsError(
            f"its calibration is {reprlib.repr(values)}; expected pairs of raw and calibrated score in 0..1, both "
            "rising, from raw score 0 to 1; write the file anew with solov2 eval --calibrate"
        )
    return pairs


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 <= value <= 1:  # NaN too
        raise ValueError(f"{type(value).__name__} is no score")
    return float(value)
