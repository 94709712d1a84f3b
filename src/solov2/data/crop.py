"""Cutting a window out of a picture: picture, boxes and shapes move together.

The random choice of the window is that of PaddleDetection's ``RandomCrop``, which goes back to the SSD detector
(Liu et al., 2016, section 2.2): small objects become large, and objects are seen in part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from solov2.data.sample import Sample
from solov2.data.shapes import Window
from solov2.structures import HW, MASK_STRIDE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_ELONGATION = 2.0
"""Without ``aspect_ratio``, how many times as long as the other a window's side may be."""

MIN_VISIBLE = 0.1
"""Share of an object that has to be left for it to be learned from."""


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """Cuts out a random window that holds enough of the objects.

    The thresholds and, where allowed, "no crop" are tried in random order; the first that gives a window decides.
    A picture without objects, and one for which no window is found, stays as it is.

    Attributes:
        aspect_ratio: lowest and highest ratio of the window's width to its height, where the picture's own ratio
            counts as 1; None draws the two sides independently, the longer at most twice the shorter.
        thresholds: least overlap of the window with the object that it overlaps most, 0..1 each.
        scaling: smallest and largest scale; the window's area is this share of the picture's, squared. Above 0, at
            most 1.
        num_attempts: windows drawn per threshold.
        allow_no_crop: "no crop" is one more threshold.
        cover_all_box: the threshold holds for every object, not only for the one overlapped most.
        ioumode: overlap is intersection over union ("iou") or over the object's own area ("iof").
        prob: probability that anything is done.
    """

    aspect_ratio: tuple[float, float] | None = (0.5, 2.0)
    thresholds: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scaling: tuple[float, float] = (0.3, 1.0)
    num_attempts: int = 50
    allow_no_crop: bool = True
    cover_all_box: bool = False
    ioumode: Literal["iou", "iof"] = "iou"
    prob: float = 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Crops with the given probability; at least one object is left of a picture that had one."""
        if len(sample.boxes) == 0 or rng.random() >= self.prob:
            return sample
        choices: list[float | None] = [*self.thresholds]
        if self.allow_no_crop:
            choices.append(None)
        for index in rng.permutation(len(choices)):
            threshold = choices[index]
            if threshold is None:
                return sample
            cropped = self._crop_above(threshold, sample, rng)
            if cropped is not None:
                return cropped
        return sample

    def _crop_above(self, threshold: float, sample: Sample, rng: np.random.Generator) -> Sample | None:
        windows = self._draw_windows(sample.hw, rng)
        overlap = _overlaps(windows, sample.boxes, over_union=self.ioumode == "iou")
        decisive = overlap.min(axis=1) if self.cover_all_box else overlap.max(axis=1)
        good = (decisive >= threshold) & _keeps(windows, sample.boxes).any(axis=1)
        for x0, y0, x1, y1 in windows[good].astype(int).tolist():
            cropped = crop(sample, Window(y0, x0, y1 - y0, x1 - x0))
            if len(cropped.shapes) > 0:
                return cropped
        return None

    def _draw_windows(self, hw: HW, rng: np.random.Generator) -> Floats:
        """Windows inside the picture: (A, 4) x0 y0 x1 y1 in whole pixels, at most ``num_attempts`` of them."""
        size = np.array(hw)
        sides = (self._draw_shares(hw, rng) * size).astype(np.int64).clip(1, size)  # (A, 2) height, width
        first = rng.integers(0, size - sides + 1)
        return np.concatenate([first[:, ::-1], (first + sides)[:, ::-1]], axis=1).astype(np.float64)

    def _draw_shares(self, hw: HW, rng: np.random.Generator) -> Floats:
        """Heights and widths as shares of the picture's: (A, 2)."""
        if self.aspect_ratio is None:
            shares = rng.uniform(*self.scaling, (self.num_attempts, 2))
            elongation = shares[:, 0] * hw[0] / (shares[:, 1] * hw[1])
            return shares[(elongation >= 1 / MAX_ELONGATION) & (elongation <= MAX_ELONGATION)]
        scale = rng.uniform(*self.scaling, self.num_attempts)
        # A ratio below scale² or above 1 / scale² makes the window higher or wider than the picture.
        low, high = np.maximum(self.aspect_ratio[0], scale**2), np.minimum(self.aspect_ratio[1], scale**-2)
        root = np.sqrt(low + rng.random(self.num_attempts) * (high - low))
        return np.column_stack([scale / root, scale * root])[low <= high]


def crop(sample: Sample, window: Window) -> Sample:
    """Cuts out a window.

    An instance stays where the centre of its box lies in the window and something of its mask is left; its box is
    clipped. Polygons may go on outside the picture: their pixels do not.

    Args:
        sample: what to cut from.
        window: inside the picture.
    """
    [inside] = _keeps(_edges(window)[None], sample.boxes)
    return cut_out(sample, window, inside)


def visible_enough(window: Window, boxes: Floats) -> Bools:
    """Whether a window shows an object rather than a sliver or a speck of it.

    The share of the box in the window is at least :data:`MIN_VISIBLE`, and the square root of that part's area at
    least one target pixel's side.

    Args:
        window: in the frame of the boxes.
        boxes: (N, 4) x0 y0 x1 y1 in pixels.

    Returns:
        (N,).
    """
    visible = _intersections(_edges(window)[None], boxes)[0].prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray((visible >= MIN_VISIBLE * areas) & (visible >= MASK_STRIDE**2), bool)


def cut_out(sample: Sample, window: Window, wanted: Bools) -> Sample:
    """Cuts out a window with those of the instances that are wanted (N,) and of which something is left in it.

    Boxes are clipped. Polygons may go on outside the picture: their pixels do not.
    """
    edges = _edges(window)
    cut = {int(index): sample.shapes[index].cropped(window) for index in np.flatnonzero(wanted)}
    shapes = {index: shape for index, shape in cut.items() if shape is not None}
    kept = np.array(list(shapes), np.int64)
    boxes = sample.boxes[kept].clip(edges[[0, 1, 0, 1]], edges[[2, 3, 2, 3]]) - edges[[0, 1, 0, 1]]
    image = sample.image[window.top : window.top + window.height, window.left : window.left + window.width]
    return replace(
        sample,
        image=np.ascontiguousarray(image),
        labels=sample.labels[kept],
        boxes=boxes,
        shapes=tuple(shapes.values()),
    )


def _edges(window: Window) -> Floats:
    return np.array([window.left, window.top, window.left + window.width, window.top + window.height], np.float64)


def _intersections(windows: Floats, boxes: Floats) -> Floats:
    """Widths and heights of what windows (A, 4) and boxes (N, 4) share, at least 0: (A, N, 2)."""
    first = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    last = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    return (last - first).clip(0)


def _overlaps(windows: Floats, boxes: Floats, *, over_union: bool) -> Floats:
    """Shared area over that of the union or that of the box: (A, N) in 0..1; 0 where there is no area."""
    shared = _intersections(windows, boxes).prod(axis=2)
    of_windows = (windows[:, 2:] - windows[:, :2]).prod(axis=1)[:, None]
    of_boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[None]
    whole = of_windows + of_boxes - shared if over_union else np.broadcast_to(of_boxes, shared.shape)
    overlaps: Floats = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return overlaps


def _keeps(windows: Floats, boxes: Floats) -> Bools:
    """Whether a box has its centre in a window and an area there: (A, N)."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (windows[:, None, :2] <= centers) & (centers < windows[:, None, 2:])
    return np.asarray((inside & (_intersections(windows, boxes) > 0)).all(axis=2), bool)
