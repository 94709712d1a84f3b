"""Transforms: a sample becomes another sample; picture, boxes and shapes move together.

Every transform is called with a sample and a random generator and returns a new sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from solov2.data.image import RGB
from solov2.data.shapes import Shape
from solov2.structures import HW


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with its instances, on the way to a batch.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        original_hw: size of the picture as it was read.
        image_id: the annotation file's id.
        name: file name, for messages.
        labels: (N,) int64, 0..C-1.
        boxes: (N, 4) float64, x0 y0 x1 y1 in pixels of ``image``.
        shapes: N shapes in the frame of ``image``.
    """

    image: RGB
    original_hw: HW
    image_id: int
    name: str
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    shapes: tuple[Shape, ...]

    @property
    def hw(self) -> HW:
        """Size of ``image``."""
        return self.image.shape[0], self.image.shape[1]

    @classmethod
    def of_image(cls, image: RGB, image_id: int = 0, name: str = "") -> Sample:
        """A picture without annotations."""
        return cls(image, (image.shape[0], image.shape[1]), image_id, name, np.zeros(0, np.int64), np.zeros((0, 4)), ())


Transform = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True, slots=True)
class Resize:
    """Scales a picture to fit a size.

    Attributes:
        target_size: (short, long) sides to fit into when the ratio is kept, else (height, width).
        keep_ratio: one scale for both sides, the largest that fits.
        min_scale: the picture is not scaled below this factor, unless its long side would exceed the
            target's long side.
    """

    target_size: tuple[int, int]
    keep_ratio: bool = True
    min_scale: float | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resizes by bilinear interpolation on the uint8 picture; ``rng`` is not used."""
        return resize_sample(sample, self.size_for(sample.hw))

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
        target_size: the sizes, as in :class:`Resize`.
        keep_ratio: as in :class:`Resize`.
        min_scale: as in :class:`Resize`.
    """

    target_size: tuple[tuple[int, int], ...]
    keep_ratio: bool = True
    min_scale: float | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resizes the picture to fit one of the sizes."""
        size = self.target_size[int(rng.integers(len(self.target_size)))]
        return Resize(size, self.keep_ratio, self.min_scale)(sample, rng)


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


def resize_sample(sample: Sample, new_hw: HW) -> Sample:
    """Scales picture, boxes (clipped to the picture) and shapes to a size."""
    old_hw = sample.hw
    if new_hw == old_hw:
        return sample
    image = cv2.resize(sample.image, (new_hw[1], new_hw[0]), interpolation=cv2.INTER_LINEAR)
    scale_y, scale_x = new_hw[0] / old_hw[0], new_hw[1] / old_hw[1]
    boxes = sample.boxes * [scale_x, scale_y, scale_x, scale_y]
    limit = np.array([new_hw[1], new_hw[0], new_hw[1], new_hw[0]])
    return replace(
        sample,
        image=np.asarray(image, np.uint8),
        boxes=np.clip(boxes, 0, limit),
        shapes=tuple(shape.resized(old_hw, new_hw) for shape in sample.shapes),
    )


def flip(sample: Sample) -> Sample:
    """Mirrors left to right."""
    width = sample.hw[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        boxes=boxes,
        shapes=tuple(shape.flipped(width) for shape in sample.shapes),
    )


def transpose(sample: Sample) -> Sample:
    """Exchanges rows and columns."""
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image.transpose(1, 0, 2)),
        boxes=sample.boxes[:, [1, 0, 3, 2]],
        shapes=tuple(shape.transposed() for shape in sample.shapes),
    )


def build_transforms(steps: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Transform, ...]:
    """Makes transforms from their names and arguments."""
    return tuple(TRANSFORMS[name](**arguments) for name, arguments in steps)


TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "RandomFlip": RandomFlip,
    "RandomResize": RandomResize,
    "RandomRotate90": RandomRotate90,
    "Resize": Resize,
}
