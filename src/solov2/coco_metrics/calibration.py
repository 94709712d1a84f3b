"""From raw scores to the probability of being right at IoU 0.5: a rising curve of few points.

It is the isotonic regression of right (1) and wrong (0) on the score, as Zadrozny and Elkan use it in "Transforming
Classifier Scores into Accurate Multiclass Probability Estimates" (2002), found by pooling adjacent violators (Ayer et
al., "An Empirical Distribution Function for Sampling with Incomplete Information", 1955). Its steps are thinned, and
joined by straight lines.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from solov2.coco_metrics.matching import best_threshold
from solov2.coco_metrics.reliability import judged, reliability_of
from solov2.coco_metrics.tally import Bools, Floats, Tally
from solov2.errors import DatasetError
from solov2.score_curve import calibrated

logger = logging.getLogger(__name__)

Knots = tuple[tuple[float, float], ...]
"""Raw and calibrated score, both rising strictly, from raw 0 to raw 1."""

MOST_KNOTS = 16

FEW_DETECTIONS = 200
"""Fewer than these say little."""

LEAST_SLOPE = 0.01
"""Share of the raw score in the calibrated one: where the regression is flat, the order of scores is kept by it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was made of an evaluation's scores.

    Attributes:
        knots: the curve.
        score_threshold: the calibrated score that separates right from wrong best, None where there is none.
        detections: that it was made from.
        right: how many of them are right.
        error_before: expected calibration error of the raw scores, 0..1.
        error_after: of the calibrated ones, on the same pictures.
    """

    knots: Knots
    score_threshold: float | None
    detections: int
    right: int
    error_before: float
    error_after: float


@dataclass(frozen=True, slots=True)
class Block:
    """Detections of neighbouring scores.

    Attributes:
        count: how many.
        right: how many of them are right.
        score_sum: of their scores.
    """

    count: float
    right: float
    score_sum: float

    def __add__(self, other: Block) -> Block:
        return Block(self.count + other.count, self.right + other.right, self.score_sum + other.score_sum)

    @property
    def value(self) -> float:
        """Share that is right."""
        return self.right / self.count

    @property
    def score(self) -> float:
        """Mean score."""
        return self.score_sum / self.count

    def smoothed(self) -> Block:
        """With one right and one wrong detection more (Laplace's rule): a few that are all right make no 1.0."""
        return Block(self.count + 2, self.right + 1, self.score_sum + 2 * self.score)


def calibrate(tally: Tally) -> Calibration:
    """Finds the curve for an evaluation of raw scores.

    Args:
        tally: of all pictures; its first IoU threshold says what is right.

    Raises:
        DatasetError: if no detection is right, or a score is not in 0..1.
    """
    found = judged(tally)
    count, right = len(found.scores), int(np.count_nonzero(found.right))
    if not right:
        raise DatasetError(
            f"of {count} detections none is right: there is nothing to calibrate scores with; expected pictures that "
            "the model can do something with"
        )
    if count < FEW_DETECTIONS:
        logger.warning("scores are calibrated with %d detections; more pictures would make them surer", count)
    knots = fit_knots(found.scores, found.right)
    before = reliability_of(found.scores, found.right).expected_calibration_error
    after = reliability_of(calibrated(found.scores, knots).astype(np.float64), found.right).expected_calibration_error
    assert before is not None
    assert after is not None
    return Calibration(knots, best_threshold(with_calibration(tally, knots)), count, right, before, after)


def fit_knots(scores: Floats, right: Bools, most: int = MOST_KNOTS) -> Knots:
    """The curve for detections.

    Blocks of the isotonic regression become knots at their mean score. Raw 0 stays 0; above the last block nothing is
    known, so raw 1 lies halfway between its value and 1.

    Args:
        scores: (D,), 0..1, one or more.
        right: (D,).
        most: knots, three or more.
    """
    blocks = pool_violators(
        block.smoothed() for block in thin_out(pool_violators(_by_score(scores, right)), max(most - 2, 1))
    )
    inner = [(block.score, block.value) for block in blocks if 0 < block.score < 1]
    last = blocks[-1]
    top = last.value if last.score >= 1 else (1 + last.value) / 2
    knots = [(0.0, 0.0), *inner, (1.0, top)]
    return tuple((raw, (1 - LEAST_SLOPE) * value + LEAST_SLOPE * raw) for raw, value in knots)


def with_calibration(tally: Tally, knots: Knots) -> Tally:
    """A tally of the same matches with calibrated scores; the given one stays as it is."""
    changed = copy.copy(tally)
    changed.by_picture = {picture: table.copy() for picture, table in tally.by_picture.items()}
    for table in changed.by_picture.values():
        table["score"] = calibrated(table["score"], knots)
    return changed


def pool_violators(blocks: Iterable[Block]) -> list[Block]:
    """Puts neighbours together until values rise strictly: the isotonic regression, weighted by counts.

    Args:
        blocks: by rising score.
    """
    pooled: list[Block] = []
    for block in blocks:
        while pooled and pooled[-1].value >= block.value:
            block = pooled.pop() + block
        pooled.append(block)
    return pooled


def thin_out(blocks: list[Block], most: int) -> list[Block]:
    """Puts neighbours together, those first that cost least squared error, until there are few enough."""
    blocks = list(blocks)
    while len(blocks) > most:
        costs = [
            left.count * right.count / (left.count + right.count) * (left.value - right.value) ** 2
            for left, right in itertools.pairwise(blocks)
        ]
        cheapest = int(np.argmin(costs))
        blocks[cheapest : cheapest + 2] = [blocks[cheapest] + blocks[cheapest + 1]]
    return blocks


def _by_score(scores: Floats, right: Bools) -> list[Block]:
    """One block for each score, rising: equal scores cannot be told apart."""
    values, index = np.unique(scores, return_inverse=True)
    counts, true = np.bincount(index), np.bincount(index, right)
    return [Block(n, t, n * s) for n, t, s in zip(counts.tolist(), true.tolist(), values.tolist(), strict=True)]
