"""One picture with its instances, as it passes from one transform to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from solov2.data.image import RGB
from solov2.data.shapes import Shape
from solov2.structures import HW


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with its instances, on the way to a batch.

    Attributes:
        image: (H, W, 3) uint8 RGB; after a flip a view, see :func:`~solov2.data.image.laid_out`.
        original_hw: size of the picture as it was read.
        image_id: the annotation file's id.
        name: file name, for messages.
        labels: (N,) int64, 0..C-1.
        boxes: (N, 4) float64, x0 y0 x1 y1 in pixels of ``image``.
        shapes: N shapes in the frame of ``image``.
        known: (C,), the categories it was annotated for: of the others it may show objects that are no instance
            here. None: all.
    """

    image: RGB
    original_hw: HW
    image_id: int
    name: str
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    shapes: tuple[Shape, ...]
    known: npt.NDArray[np.bool_] | None = None

    @property
    def hw(self) -> HW:
        """Size of ``image``."""
        return self.image.shape[0], self.image.shape[1]

    @classmethod
    def of_image(cls, image: RGB, image_id: int = 0, name: str = "") -> Sample:
        """A picture without annotations."""
        return cls(image, (image.shape[0], image.shape[1]), image_id, name, np.zeros(0, np.int64), np.zeros((0, 4)), ())


Transform = Callable[[Sample, np.random.Generator], Sample]


@runtime_checkable
class PairTransform(Protocol):
    """A transform that mixes a second picture into the first; who holds the pictures calls ``pair`` instead."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """What becomes of a picture where there is no second one."""

    def pair(self, sample: Sample, rng: np.random.Generator, other: Callable[[], Sample]) -> Sample:
        """Mixes.

        Args:
            sample: the first picture.
            rng: random numbers.
            other: reads a second one, drawn by the same random numbers and after the same transforms as the first.
        """
