"""Proof: the exported file and PyTorch find the same in real pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from solov2.structures import Instances

logger = logging.getLogger(__name__)

LEAST_INSTANCES = 20
"""Fewer matched instances prove nothing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an export may differ by.

    Attributes:
        least_iou: every matched mask has at least this IoU with its counterpart.
        score_difference: no score differs by more.
        unmatched_share: of all instances, those without a counterpart.
    """

    least_iou: float
    score_difference: float
    unmatched_share: float


FLOAT32 = Bounds(0.999, 1e-3, 0.0)
HALF = Bounds(0.9, 0.05, 0.02)


@dataclass
class Parity:
    """How far two runs over the same pictures agree.

    Attributes:
        pictures: compared.
        matched: instances that both found.
        unmatched: instances that only one of them found, those near the least score and the cap left aside.
        least_iou: of the masks of matched instances, at the picture's size.
        mean_iou: of the same.
        score_difference: the largest.
    """

    pictures: int = 0
    matched: int = 0
    unmatched: int = 0
    least_iou: float = 1.0
    score_difference: float = 0.0
    _ious: list[float] = field(default_factory=list, repr=False)

    @property
    def mean_iou(self) -> float:
        """Of matched instances; 1 if there are none."""
        return float(np.mean(self._ious)) if self._ious else 1.0

    def add(self, ours: Instances, theirs: Instances, least_score: float, cap: int, tolerance: float) -> None:
        """Compares what was found in one picture.

        Args:
            ours: by PyTorch.
            theirs: by the exported file.
            least_score: that decoding keeps, 0..1.
            cap: the most instances that decoding keeps.
            tolerance: instances this close to the least score, or to the last of ``cap``, may be found by one alone.
        """
        pairs = match(ours, theirs)
        self.pictures += 1
        self.matched += len(pairs)
        for i, j, iou in pairs:
            self._ious.append(iou)
            self.least_iou = min(self.least_iou, iou)
            self.score_difference = max(self.score_difference, abs(float(ours.scores[i]) - float(theirs.scores[j])))
        floor = least_score + tolerance
        for found in (ours, theirs):
            if len(found) >= cap:
                floor = max(floor, float(found.scores[-1]) + tolerance)
        for found, seen in ((ours, {i for i, _, _ in pairs}), (theirs, {j for _, j, _ in pairs})):
            self.unmatched += sum(score >= floor and i not in seen for i, score in enumerate(found.scores.tolist()))

    def problems(self, bounds: Bounds) -> list[str]:
        """What exceeds the bounds, in words; empty where all is well."""
        wrong = []
        if self.matched < LEAST_INSTANCES:
            wrong.append(f"only {self.matched} instances matched in {self.pictures} pictures, {LEAST_INSTANCES} needed")
        if self.least_iou < bounds.least_iou:
            wrong.append(f"least mask IoU {self.least_iou:.4f}, at least {bounds.least_iou} needed")
        if self.score_difference > bounds.score_difference:
            wrong.append(
                f"scores differ by up to {self.score_difference:.5f}, at most {bounds.score_difference} allowed"
            )
        if self.unmatched > bounds.unmatched_share * (self.matched + self.unmatched):
            wrong.append(f"{self.unmatched} instances found by one side alone")
        return wrong

    def report(self, bounds: Bounds) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "passed": not self.problems(bounds),
            "pictures": self.pictures,
            "matched_instances": self.matched,
            "unmatched_instances": self.unmatched,
            "least_mask_iou": self.least_iou,
            "mean_mask_iou": self.mean_iou,
            "largest_score_difference": self.score_difference,
            "bounds": asdict(bounds),
        }


def compare(
    pictures: Sequence[Any],
    ours: Callable[[Any], Instances],
    theirs: Callable[[Any], Instances],
    *,
    least_score: float,
    cap: int,
    tolerance: float,
) -> Parity:
    """Runs both over all pictures; the other arguments are those of :meth:`Parity.add`."""
    parity = Parity()
    for number, picture in enumerate(pictures, start=1):
        parity.add(ours(picture), theirs(picture), least_score, cap, tolerance)
        logger.info("compared %d of %d pictures, %d instances matched", number, len(pictures), parity.matched)
    return parity


def match(ours: Instances, theirs: Instances) -> list[tuple[int, int, float]]:
    """Pairs of the same label with the best mask IoU, of at least 0.5: positions in both, and the IoU.

    Each instance of ours, best first, takes the best that is left of theirs. Two empty masks of one label and
    nearly one score are a pair with IoU 1.
    """
    free = np.ones(len(theirs), bool)
    pairs = []
    for i in range(len(ours)):
        rows = np.flatnonzero(free & (theirs.labels == ours.labels[i]) & _near(ours.boxes[i], theirs.boxes))
        ious = [_mask_iou(ours, i, theirs, int(j)) for j in rows]
        if ious and max(ious) >= 0.5:
            best = int(np.argmax(ious))
            free[rows[best]] = False
            pairs.append((i, int(rows[best]), ious[best]))
    return pairs


def _near(box: Any, boxes: Any) -> Any:
    """Which boxes overlap, or are both of nothing."""
    overlap = (boxes[:, :2] < box[2:]).all(axis=1) & (boxes[:, 2:] > box[:2]).all(axis=1)
    return overlap | ((boxes == box).all(axis=1))


def _mask_iou(ours: Instances, i: int, theirs: Instances, j: int) -> float:
    (a, b), (first, second) = (ours.boxes[i].astype(int), theirs.boxes[j].astype(int)), (ours.crops[i], theirs.crops[j])
    x0, y0 = np.maximum(a[:2], b[:2])
    x1, y1 = np.maximum(np.minimum(a[2:], b[2:]), (x0, y0))
    parts = [crop[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] for box, crop in ((a, first), (b, second))]
    shared = int(np.count_nonzero(parts[0] & parts[1]))
    union = int(np.count_nonzero(first)) + int(np.count_nonzero(second)) - shared
    return shared / union if union else 1.0
