"""The values that travel between the parts of the package.

Letters: B images, C categories, S cells per side, E mask-feature channels, H, W padded input,
h, w mask grid (H/4, W/4), N instances. Sizes are always height first; boxes are x0 y0 x1 y1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

HW = tuple[int, int]
"""A size in pixels, height first."""

MASK_STRIDE = 4
"""Input pixels per cell of the mask features and of the training masks (paper section 3.2)."""

BACKGROUND = -1
"""Label of a cell without an instance."""


@dataclass(frozen=True, slots=True)
class Category:
    """One class: ``id`` is the number the annotation file uses, its index in a list is the label."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a picture lies in the network's input: resized, then padded at the right and the bottom.

    Attributes:
        original_hw: size of the picture as it was given.
        resized_hw: its size in the network's input.
        padded_hw: size of the network's input, multiples of 32.
    """

    original_hw: HW
    resized_hw: HW
    padded_hw: HW


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the network says about a batch; a level is one grid.

    Attributes:
        category_logits: per level (B, C, S, S).
        kernels: per level (B, E, S, S), the mask kernel of each cell.
        mask_features: (B, E, h, w), shared by all levels.
        strides: per level, input pixels per cell of the map the grid was taken from; decoding
            drops masks with fewer mask pixels than this number.
        native: grids are the network's maps themselves, a cell every ``strides`` pixels; otherwise they are
            square whatever the picture.
        ellipses: where kernels end with an ellipse (:mod:`solov2.model.ellipse`), per level (B, 5, S, S) float32,
            what the last five kernel entries stand for; else empty.
    """

    category_logits: tuple[Tensor, ...]
    kernels: tuple[Tensor, ...]
    mask_features: Tensor
    strides: tuple[int, ...]
    native: bool = False
    ellipses: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Targets:
    """The instances of one training picture, in the padded input's frame; tensors on the CPU.

    Attributes:
        labels: (N,) int64, 0..C-1.
        boxes: (N, 4) float64, x0 y0 x1 y1 in pixels.
        centers: (N, 2) float64, centre of mass of the full-size mask as (y, x) pixel indices; NaN
            where the mask is empty.
        masks: (N, h, w) uint8 of 0 and 1.
        known: (C,) bool, the categories the picture was annotated for: a cell without an instance says nothing
            about the others. None: all.
    """

    labels: Tensor
    boxes: Tensor
    centers: Tensor
    masks: Tensor
    known: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class LevelAssignment:
    """One level's share of a picture's targets.

    Attributes:
        labels: (S * S,) int64, row-major cells; -1 is background. Where instances meet in a cell the
            last one in the annotation's order gives the label.
        cells: (P,) int64, cell_index = row * S + column of each pair.
        instances: (P,) int64, the row of ``Targets`` each pair trains. An instance's mask is kept
            once, however many cells point to it, and a cell may occur in several pairs.
    """

    labels: Tensor
    cells: Tensor
    instances: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of unequal size in one tensor.

    Attributes:
        images: (B, 3, H, W) uint8 RGB, zero outside each picture.
        frames: one per picture.
        image_ids: the annotation file's ids, or positions where there is no such file.
        names: file names, for messages.
        targets: one per picture; empty when the batch is not for training.
    """

    images: Tensor
    frames: tuple[Frame, ...]
    image_ids: tuple[int, ...]
    names: tuple[str, ...]
    targets: tuple[Targets, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects found in one picture, best first.

    A mask is stored as the crop inside its box; ``masks`` expands them on access.

    Attributes:
        original_hw: size of the picture.
        labels: (N,) int64, 0..C-1.
        scores: (N,) float32, descending, 0..1.
        boxes: (N, 4) float32, x0 y0 x1 y1 in pixels: the extent of each mask, right and bottom
            exclusive; zeros for an empty mask.
        crops: N boolean arrays, crop i being mask i inside its box.
        categories: the model's classes by label; empty when unknown.

    Example:
        >>> found = Instances.from_masks(np.eye(3, dtype=bool)[None], [0], [0.9])
        >>> found.boxes.tolist(), found.areas.tolist()
        ([[0.0, 0.0, 3.0, 3.0]], [3])
    """

    original_hw: HW
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    crops: tuple[npt.NDArray[np.bool_], ...]
    categories: tuple[Category, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.crops)
        shapes = {
            "labels": (self.labels.shape, (count,)),
            "scores": (self.scores.shape, (count,)),
            "boxes": (self.boxes.shape, (count, 4)),
        }
        for name, (actual, expected) in shapes.items():
            if actual != expected:
                raise ValueError(f"Instances.{name} has shape {actual}, expected {expected} for {count} crops")

    @classmethod
    def empty(cls, original_hw: HW, categories: Sequence[Category] = ()) -> Instances:
        """No object at all, with the arrays' usual types."""
        return cls(
            original_hw=original_hw,
            labels=np.zeros(0, np.int64),
            scores=np.zeros(0, np.float32),
            boxes=np.zeros((0, 4), np.float32),
            crops=(),
            categories=tuple(categories),
        )

    @classmethod
    def from_masks(
        cls,
        masks: npt.NDArray[np.bool_],
        labels: npt.ArrayLike,
        scores: npt.ArrayLike,
        categories: Sequence[Category] = (),
    ) -> Instances:
        """Builds the value from full-size masks (N, H, W); boxes come from the masks."""
        boxed = [crop_to_extent(mask) for mask in masks]
        return cls(
            original_hw=(masks.shape[1], masks.shape[2]),
            labels=np.asarray(labels, np.int64),
            scores=np.asarray(scores, np.float32),
            boxes=np.array([box for box, _ in boxed], np.float32).reshape(-1, 4),
            crops=tuple(crop for _, crop in boxed),
            categories=tuple(categories),
        )

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: npt.ArrayLike | slice) -> Instances:
        """Selects rows by a slice, by positions or by a boolean (N,) array."""
        if not isinstance(index, slice):
            index = np.atleast_1d(np.asarray(index))
            index = index if index.size else index.astype(np.int64)  # an empty list would be one of floats
        rows = np.arange(len(self))[index]
        return replace(
            self,
            labels=self.labels[rows],
            scores=self.scores[rows],
            boxes=self.boxes[rows],
            crops=tuple(self.crops[row] for row in rows),
        )

    @cached_property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Full-size masks, (N, H, W) bool."""
        masks = np.zeros((len(self), *self.original_hw), bool)
        for mask, (x0, y0, x1, y1), crop in zip(masks, self.boxes.astype(int), self.crops, strict=True):
            mask[y0:y1, x0:x1] = crop
        return masks

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """(N,) int64, pixels in each mask."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One class name per instance; ``class 7`` where the model carries no names."""
        return tuple(
            self.categories[label].name if label < len(self.categories) else f"class {label}"
            for label in self.labels.tolist()
        )

    @property
    def category_ids(self) -> npt.NDArray[np.int64]:
        """(N,) int64, the annotation file's ids; the labels where the model carries none."""
        ids = np.array([category.id for category in self.categories], np.int64)
        return ids[self.labels] if len(ids) else self.labels


def crop_to_extent(
    mask: npt.NDArray[np.bool_], origin_xy: tuple[int, int] = (0, 0)
) -> tuple[tuple[int, int, int, int], npt.NDArray[np.bool_]]:
    """The tight box of a mask and the mask inside it.

    Args:
        mask: (h, w).
        origin_xy: where its first pixel lies in the picture.

    Returns:
        The box x0 y0 x1 y1, right and bottom exclusive, in the picture's frame, and the crop. Zeros
        and a (0, 0) crop for an empty mask.
    """
    extent = extent_of(mask)
    if extent is None:
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    (y0, y1), (x0, x1) = extent
    left, top = origin_xy
    return (left + x0, top + y0, left + x1, top + y1), mask[y0:y1, x0:x1].copy()


def extent_of(mask: npt.NDArray[np.bool_]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """First and last plus one row, and the same of columns, that have a pixel of a mask (h, w); None if it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)
