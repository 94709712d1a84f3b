"""Proof: the exported file and PyTorch find the same in real pictures.

Two programs that add the same numbers in another order differ in the last bits, and a pixel whose probability is
that close to the mask threshold then belongs to one mask and not to the other. In a small mask that is much: its IoU,
its area, the score that Matrix NMS leaves it and those of the masks that it overlaps all jump. So a difference beyond
the bounds is held against PyTorch itself with the threshold moved a little either way: what PyTorch's own answer
passes through there is no fault of the file. How often that happened is counted, bounded and reported.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from solov2.structures import Instances

logger = logging.getLogger(__name__)

LEAST_INSTANCES = 20
"""Fewer matched instances prove nothing."""

NUDGE = 1e-3
"""By how much the mask threshold is moved to see what hangs on it, 0..1."""

SAME_IOU = 1e-3
"""Masks this equal are told apart by their scores."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an export may differ by.

    Attributes:
        least_iou: every matched mask has at least this IoU with its counterpart.
        score_difference: no score differs by more.
        unmatched_share: of all instances, those without a counterpart.
        threshold_share: of all instances, those that differ by more as they hang on the mask threshold; one always may.
        outlier_share: of matched instances, those that may differ by more all the same. Of two overlapping masks with
            nearly one score either may come first, and Matrix NMS then lowers the other: 16 bits decide such ties anew.
    """

    least_iou: float
    score_difference: float
    unmatched_share: float
    threshold_share: float = 0.05
    outlier_share: float = 0.0


FLOAT32 = Bounds(0.999, 1e-3, 0.0)
HALF = Bounds(0.9, 0.05, 0.02, outlier_share=0.01)


Nudged = tuple[Instances, Instances]
"""What PyTorch finds with the mask threshold a little lower, and a little higher."""


class Pair(NamedTuple):
    """Two instances that are the same: positions in ours and in theirs, IoU of the masks, difference of the scores."""

    i: int
    j: int
    iou: float
    score_difference: float


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
        at_threshold: instances that differ by more than is allowed, as their masks, or those they overlap, have pixels
            at the very threshold.
        pixels_at_threshold: in which the masks of such pairs differ.
    """

    pictures: int = 0
    matched: int = 0
    unmatched: int = 0
    least_iou: float = 1.0
    score_difference: float = 0.0
    at_threshold: int = 0
    pixels_at_threshold: int = 0
    _ious: list[float] = field(default_factory=list, repr=False)
    _to_answer_for: list[Pair] = field(default_factory=list, repr=False)

    @property
    def mean_iou(self) -> float:
        """Of matched instances; 1 if there are none."""
        return float(np.mean(self._ious)) if self._ious else 1.0

    def add(
        self,
        ours: Instances,
        theirs: Instances,
        least_score: float,
        cap: int,
        tolerance: float,
        *,
        least_iou: float = FLOAT32.least_iou,
        nudged: Callable[[], Nudged] | None = None,
    ) -> None:
        """Compares what was found in one picture.

        Args:
            ours: by PyTorch.
            theirs: by the exported file.
            least_score: that decoding keeps, 0..1.
            cap: the most instances that decoding keeps.
            tolerance: instances this close to the least score, or to the last of ``cap``, may be found by one alone.
                A pair whose scores differ by more is held against ``nudged``.
            least_iou: a pair whose masks agree less is held against ``nudged``.
            nudged: what PyTorch finds with the mask threshold moved; asked for only where it is needed. None: nothing
                hangs on the threshold.
        """
        pairs = match(ours, theirs)
        alone = _alone(ours, theirs, pairs, least_score, cap, tolerance)
        self.pictures += 1
        self.matched += len(pairs)
        doubtful = [pair for pair in pairs if pair.iou < least_iou or pair.score_difference > tolerance]
        explained: dict[Pair, int] = {}
        if nudged is not None and (doubtful or any(alone)):
            judge = _Judge(ours, theirs, nudged(), least_iou, tolerance)
            explained = {pair: pixels for pair in doubtful if (pixels := judge.pixels(pair)) is not None}
            left = [i for i in alone[0] if not judge.may_vanish(i)], [j for j in alone[1] if not judge.may_appear(j)]
            self.at_threshold += len(alone[0]) + len(alone[1]) - len(left[0]) - len(left[1])
            alone = left
        self.at_threshold += len(explained)
        self.pixels_at_threshold += sum(explained.values())
        self.unmatched += len(alone[0]) + len(alone[1])
        for pair in pairs:
            self._count(pair, to_answer_for=pair not in explained)

    def _count(self, pair: Pair, *, to_answer_for: bool) -> None:
        self._ious.append(pair.iou)
        self.least_iou = min(self.least_iou, pair.iou)
        self.score_difference = max(self.score_difference, pair.score_difference)
        if to_answer_for:
            self._to_answer_for.append(pair)

    def _outliers(self, bounds: Bounds) -> int:
        return sum(
            pair.iou < bounds.least_iou or pair.score_difference > bounds.score_difference
            for pair in self._to_answer_for
        )

    def problems(self, bounds: Bounds) -> list[str]:
        """What exceeds the bounds, in words; empty where all is well."""
        wrong = []
        if self.matched < LEAST_INSTANCES:
            wrong.append(f"only {self.matched} instances matched in {self.pictures} pictures, {LEAST_INSTANCES} needed")
        if self._outliers(bounds) > bounds.outlier_share * self.matched:
            least = min(pair.iou for pair in self._to_answer_for)
            difference = max(pair.score_difference for pair in self._to_answer_for)
            if least < bounds.least_iou:
                wrong.append(f"least mask IoU {least:.4f}, at least {bounds.least_iou} needed")
            if difference > bounds.score_difference:
                wrong.append(f"scores differ by up to {difference:.5f}, at most {bounds.score_difference} allowed")
        if self.unmatched > bounds.unmatched_share * (self.matched + self.unmatched):
            wrong.append(f"{self.unmatched} instances found by one side alone")
        if self.at_threshold > max(1, bounds.threshold_share * (self.matched + self.unmatched)):
            wrong.append(
                f"{self.at_threshold} instances differ where PyTorch itself wavers at the mask threshold, at most "
                f"{bounds.threshold_share:.0%} allowed"
            )
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
            "instances_at_threshold": self.at_threshold,
            "pixels_at_threshold": self.pixels_at_threshold,
            "outliers": self._outliers(bounds),
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
    least_iou: float = FLOAT32.least_iou,
    nudged: Callable[[Any], Nudged] | None = None,
) -> Parity:
    """Runs both over all pictures; the other arguments are those of :meth:`Parity.add`."""
    parity = Parity()
    for number, picture in enumerate(pictures, start=1):
        moved = None if nudged is None else functools.partial(nudged, picture)
        parity.add(ours(picture), theirs(picture), least_score, cap, tolerance, least_iou=least_iou, nudged=moved)
        logger.info("compared %d of %d pictures, %d instances matched", number, len(pictures), parity.matched)
    return parity


def _alone(
    ours: Instances, theirs: Instances, pairs: Sequence[Pair], least_score: float, cap: int, tolerance: float
) -> tuple[list[int], list[int]]:
    """What only one of them found and the other ought to have found: positions in ours, and in theirs."""
    floor = least_score + tolerance
    for found in (ours, theirs):
        if len(found) >= cap:
            floor = max(floor, float(found.scores[-1]) + tolerance)
    seen = {pair.i for pair in pairs}, {pair.j for pair in pairs}
    rows = [np.flatnonzero(found.scores >= floor).tolist() for found in (ours, theirs)]
    return [i for i in rows[0] if i not in seen[0]], [j for j in rows[1] if j not in seen[1]]


class _Judge:
    """What hangs on the mask threshold in one picture.

    Args:
        ours: by PyTorch.
        theirs: by the exported file.
        nudged: by PyTorch with the threshold moved.
        least_iou: that masks agree with.
        tolerance: of scores.
    """

    def __init__(self, ours: Instances, theirs: Instances, nudged: Nudged, least_iou: float, tolerance: float) -> None:
        self.ours, self.theirs, self.nudged = ours, theirs, nudged
        self.least_iou, self.tolerance = least_iou, tolerance
        self.partners = [{pair.i: pair.j for pair in match(ours, moved)} for moved in nudged]

    def pixels(self, pair: Pair) -> int | None:
        """In how many pixels a pair differs; None if that, or its scores, cannot be blamed on the threshold."""
        known = [(self.ours, pair.i)]
        known += [
            (moved, seen[pair.i]) for moved, seen in zip(self.nudged, self.partners, strict=True) if pair.i in seen
        ]
        scores = [float(found.scores[row]) for found, row in known]
        score = float(self.theirs.scores[pair.j])
        if not min(scores) - self.tolerance <= score <= max(scores) + self.tolerance:
            return None
        *of_ours, mask = _in_one_frame([*known, (self.theirs, pair.j)])
        differs = of_ours[0] != mask
        wavers = np.any(of_ours, axis=0) & ~np.all(of_ours, axis=0)
        if pair.iou < self.least_iou and (differs & ~wavers).any():
            return None
        return int(np.count_nonzero(differs))

    def may_vanish(self, i: int) -> bool:
        """Whether PyTorch itself loses an instance, such as one whose mask is hardly large enough."""
        return any(i not in partners for partners in self.partners)

    def may_appear(self, j: int) -> bool:
        """Whether PyTorch itself finds what only the file found."""
        for moved, partners in zip(self.nudged, self.partners, strict=True):
            new = [row for row in range(len(moved)) if row not in set(partners.values())]
            if match(self.theirs[[j]], moved[new]):
                return True
        return False


def match(ours: Instances, theirs: Instances) -> list[Pair]:
    """Pairs of the same label with the best mask IoU, of at least 0.5.

    Each instance of ours, best first, takes the best that is left of theirs; of masks as good, the one whose score is
    nearest. Two empty masks of one label are a pair with IoU 1.
    """
    free = np.ones(len(theirs), bool)
    pairs = []
    for i in range(len(ours)):
        rows = np.flatnonzero(free & (theirs.labels == ours.labels[i]) & _near(ours.boxes[i], theirs.boxes))
        ious = np.array([_mask_iou(ours, i, theirs, int(j)) for j in rows])
        if len(ious) and ious.max() >= 0.5:
            distances = np.abs(theirs.scores[rows] - ours.scores[i])
            best = int(np.where(ious >= ious.max() - SAME_IOU, distances, np.inf).argmin())
            free[rows[best]] = False
            pairs.append(Pair(i, int(rows[best]), float(ious[best]), float(distances[best])))
    return pairs


def _near(box: Any, boxes: Any) -> Any:
    """Which boxes overlap, or are both of nothing."""
    overlap = (boxes[:, :2] < box[2:]).all(axis=1) & (boxes[:, 2:] > box[:2]).all(axis=1)
    return overlap | ((boxes == box).all(axis=1))


def _mask_iou(ours: Instances, i: int, theirs: Instances, j: int) -> float:
    first, second = _in_one_frame([(ours, i), (theirs, j)])
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


def _in_one_frame(rows: Sequence[tuple[Instances, int]]) -> list[npt.NDArray[np.bool_]]:
    """Masks as far as any of them reaches, all of one size."""
    boxes = [found.boxes[row].astype(int) for found, row in rows]
    filled = [box for box in boxes if box[2] > box[0]] or boxes[:1]
    x0, y0 = np.min(filled, axis=0)[:2]
    x1, y1 = np.max(filled, axis=0)[2:]
    masks = []
    for box, (found, row) in zip(boxes, rows, strict=True):
        mask = np.zeros((y1 - y0, x1 - x0), bool)
        if box[2] > box[0]:
            mask[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0] = found.crops[row]
        masks.append(mask)
    return masks
