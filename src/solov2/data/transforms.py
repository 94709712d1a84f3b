"""Transforms: a sample becomes another sample; picture, boxes and shapes move together.

Every transform is called with a sample and a random generator and returns a new sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from solov2.data.copy_paste import CopyPaste
from solov2.data.crop import RandomCrop, cut_out, visible_enough
from solov2.data.distort import RandomDistort
from solov2.data.image import laid_out
from solov2.data.sample import Sample as Sample
from solov2.data.sample import Transform as Transform
from solov2.data.shapes import Window
from solov2.structures import HW

INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
"""By the numbers that recipes give them."""

LINEAR = 1


@dataclass(frozen=True, slots=True)
class Resize:
    """Scales a picture to fit a size.

    Attributes:
        target_size: (short, long) sides to fit into when the ratio is kept, else (height, width).
        keep_ratio: one scale for both sides, the largest that fits.
        min_scale: the picture is not scaled below this factor, unless its long side would exceed the
            target's long side.
        interp: how pixels are interpolated: 0 nearest, 1 linear, 2 cubic, 3 area, 4 Lanczos. Bitmaps always
            take the nearest.
    """

    target_size: tuple[int, int]
    keep_ratio: bool = True
    min_scale: float | None = None
    interp: int = LINEAR

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resizes the uint8 picture; ``rng`` is not used."""
        return resize_sample(sample, self.size_for(sample.hw), self.interp)

    def size_for(self, hw: HW) -> HW:
        """The size a picture of size ``hw`` gets, at least one pixel each way."""
        if not self.keep_ratio:
            return self.target_size
        fit_long = max(self.target_size) / max(hw)
        scale = min(max(min(self.target_size) / min(hw), self.min_scale or 0.0), fit_long)
        return max(int(scale * hw[0] + 0.5), 1), max(int(scale * hw[1] + 0.5), 1)


@dataclass(frozen=True, slots=True)
class RandomResize:
    """Scales a picture to fit one of several sizes, drawn anew each time (multi-scale training).

    Attributes:
        target_size: the sizes, as in :class:`Resize`; with ``random_range`` two.
        keep_ratio: as in :class:`Resize`.
        min_scale: as in :class:`Resize`.
        interp: as in :class:`Resize`.
        random_range: draw the first side evenly from those of the two sizes, both included; the second side
            is the larger of theirs.
        random_interp: draw one of the five interpolations each time, instead of ``interp``.
    """

    target_size: tuple[tuple[int, int], ...]
    keep_ratio: bool = True
    min_scale: float | None = None
    interp: int = LINEAR
    random_range: bool = False
    random_interp: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resizes the picture to fit the size drawn."""
        size = self._draw_size(rng)
        interp = int(rng.integers(len(INTERPOLATIONS))) if self.random_interp else self.interp
        return Resize(size, self.keep_ratio, self.min_scale, interp)(sample, rng)

    def _draw_size(self, rng: np.random.Generator) -> tuple[int, int]:
        if not self.random_range:
            return self.target_size[int(rng.integers(len(self.target_size)))]
        firsts, seconds = zip(*self.target_size, strict=True)
        return int(rng.integers(min(firsts), max(firsts) + 1)), max(seconds)


@dataclass(frozen=True, slots=True)
class LargeScaleJitter:
    """Scales a picture up or down by much, then cuts or pads it to one size (Ghiasi et al., "Simple Copy-Paste", 2021).

    Where the scaled picture is larger than the size, a window is cut out at random; where it is smaller, it is padded
    at the right and the bottom. An instance stays where enough of it is visible (:func:`visible_enough`).

    Attributes:
        target_size: height and width of the result.
        scale: lowest and highest scale, drawn evenly between them; at 1 the picture just fits into the size.
        fill: RGB of the padding, 0..255.
    """

    target_size: HW
    scale: tuple[float, float] = (0.1, 2.0)
    fill: tuple[int, int, int] = (124, 116, 104)  # the usual mean: near the 0 that padding has after normalising

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Scales, cuts and pads."""
        scaled = resize_sample(sample, self.size_for(sample.hw, rng.uniform(*self.scale)))
        size = np.minimum(scaled.hw, self.target_size)
        top, left = rng.integers(0, np.array(scaled.hw) - size + 1).tolist()
        window = Window(top, left, *size.tolist())
        return pad(cut_out(scaled, window, visible_enough(window, scaled.boxes)), self.target_size, self.fill)

    def size_for(self, hw: HW, scale: float) -> HW:
        """The size a picture of size ``hw`` is scaled to, before it is cut."""
        factor = scale * min(self.target_size[0] / hw[0], self.target_size[1] / hw[1])
        return max(int(factor * hw[0] + 0.5), 1), max(int(factor * hw[1] + 0.5), 1)


@dataclass(frozen=True, slots=True)
class RandomPatch:
    """Cuts a patch out of a picture and scales it to one size: for pictures of many sizes and like objects.

    The scale is one of pixels, whatever the picture's size. The part of the picture that becomes the patch is
    drawn evenly; a picture that is smaller, at that scale, than the patch gives all it has. An instance stays where
    enough of it is visible (:func:`visible_enough`).

    Attributes:
        target_size: height and width of the patch.
        scale: lowest and highest scale; its logarithm is drawn evenly.
    """

    target_size: HW
    scale: tuple[float, float] = (1.0, 1.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cuts, then scales."""
        scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        size = np.minimum(sample.hw, np.ceil(np.array(self.target_size) / scale)).astype(np.int64)
        top, left = rng.integers(0, np.array(sample.hw) - size + 1).tolist()
        window = Window(top, left, *size.tolist())
        patch = cut_out(sample, window, visible_enough(window, sample.boxes))
        new_hw = np.minimum(np.rint(size * scale), self.target_size).clip(1).astype(int)
        return resize_sample(patch, (int(new_hw[0]), int(new_hw[1])))


@dataclass(frozen=True, slots=True)
class RandomFlip:
    """Mirrors a picture left to right and, where up and down mean nothing, top to bottom.

    Attributes:
        prob: probability of the left-right flip.
        vertical_prob: probability of the top-bottom flip.
    """

    prob: float = 0.5
    vertical_prob: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Flips with the given probabilities."""
        if rng.random() < self.prob:
            sample = flip(sample)
        if rng.random() < self.vertical_prob:
            sample = transpose(flip(transpose(sample)))
        return sample


@dataclass(frozen=True, slots=True)
class RandomRotate90:
    """Turns a picture by a quarter, for pictures without an up, such as microscopy.

    Together with flips both ways this gives all eight positions of a rectangle.

    Attributes:
        prob: probability of the turn.
    """

    prob: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Turns anticlockwise with the given probability."""
        return transpose(flip(sample)) if rng.random() < self.prob else sample


def resize_sample(sample: Sample, new_hw: HW, interp: int = LINEAR) -> Sample:
    """Scales picture, boxes (clipped to the picture) and shapes to a size; ``interp`` as in :class:`Resize`."""
    old_hw = sample.hw
    if new_hw == old_hw:
        return sample
    image = cv2.resize(sample.image, (new_hw[1], new_hw[0]), interpolation=INTERPOLATIONS[interp])
    scale_y, scale_x = new_hw[0] / old_hw[0], new_hw[1] / old_hw[1]
    boxes = sample.boxes * [scale_x, scale_y, scale_x, scale_y]
    limit = np.array([new_hw[1], new_hw[0], new_hw[1], new_hw[0]])
    return replace(
        sample,
        image=np.asarray(image, np.uint8),
        boxes=np.clip(boxes, 0, limit),
        shapes=tuple(shape.resized(old_hw, new_hw) for shape in sample.shapes),
    )


def pad(sample: Sample, new_hw: HW, fill: tuple[int, int, int]) -> Sample:
    """Adds rows at the bottom and columns at the right, up to a size; no object goes on in them."""
    old_hw = sample.hw
    if new_hw == old_hw:
        return sample
    below, beside = new_hw[0] - old_hw[0], new_hw[1] - old_hw[1]
    image = cv2.copyMakeBorder(sample.image, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=fill)
    return replace(
        sample, image=np.asarray(image, np.uint8), shapes=tuple(shape.within(old_hw) for shape in sample.shapes)
    )


def flip(sample: Sample) -> Sample:
    """Mirrors left to right; the picture is a view of the old one, as :func:`laid_out` says."""
    width = sample.hw[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    return replace(
        sample,
        image=sample.image[:, ::-1],
        boxes=boxes,
        shapes=tuple(shape.flipped(width) for shape in sample.shapes),
    )


def transpose(sample: Sample) -> Sample:
    """Exchanges rows and columns."""
    return replace(
        sample,
        image=np.asarray(cv2.transpose(laid_out(sample.image)), np.uint8),
        boxes=sample.boxes[:, [1, 0, 3, 2]],
        shapes=tuple(shape.transposed() for shape in sample.shapes),
    )


def build_transforms(steps: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Transform, ...]:
    """Makes transforms from their names and arguments."""
    return tuple(TRANSFORMS[name](**arguments) for name, arguments in steps)


TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "CopyPaste": CopyPaste,
    "LargeScaleJitter": LargeScaleJitter,
    "RandomCrop": RandomCrop,
    "RandomDistort": RandomDistort,
    "RandomFlip": RandomFlip,
    "RandomPatch": RandomPatch,
    "RandomResize": RandomResize,
    "RandomRotate90": RandomRotate90,
    "Resize": Resize,
}
