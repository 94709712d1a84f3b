"""Masks as shapes: they follow the picture's geometry and become pixels once, at mask resolution.

A target pixel stands for 4×4 input pixels and is set when at least 2 of their central 2×2 are, which
is what resizing the full mask to a quarter by bilinear interpolation and rounding gives. So only
those central pixels are ever computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solov2.data.scanlines import FULL_SAMPLING, MIN_CENTRAL, Bits, Floats, draw, is_central
from solov2.structures import HW, MASK_STRIDE

MIRROR = np.array([-1.0, 1.0])
"""Turns x around."""

NO_CENTER = (np.nan, np.nan)
CENTRAL = (1, 2)
"""Rows (and columns) of a 4×4 block that decide its target pixel."""


@dataclass(frozen=True, slots=True)
class Target:
    """A shape on the mask grid.

    Attributes:
        mask: (h, w) uint8 of 0 and 1.
        center: (y, x), centre of mass in pixel indices of the full-size input; NaN without a pixel.
    """

    mask: Bits
    center: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture, in whole pixels.

    Attributes:
        top: its first row.
        left: its first column.
        height: its rows, at least 1.
        width: its columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Polygons:
    """One instance as the union of polygons.

    Attributes:
        parts: each (V, 2) x, y in pixels, pixel centres lying at halves.
    """

    parts: tuple[Floats, ...]

    def resized(self, old_hw: HW, new_hw: HW) -> Polygons:
        """Follows a resize of the picture."""
        factors = np.array([new_hw[1] / old_hw[1], new_hw[0] / old_hw[0]])
        return Polygons(tuple(part * factors for part in self.parts))

    def flipped(self, width: int) -> Polygons:
        """Follows a left-right flip."""
        return Polygons(tuple(part * MIRROR + (width, 0) for part in self.parts))

    def transposed(self) -> Polygons:
        """Follows an exchange of rows and columns."""
        return Polygons(tuple(part[:, ::-1] for part in self.parts))

    def cropped(self, window: Window) -> Polygons | None:
        """Follows a crop; parts with nothing in the window go, the others are not clipped. None if all go."""
        moved = (part - (window.left, window.top) for part in self.parts)
        parts = tuple(part for part in moved if _reaches(part, (window.height, window.width)))
        return Polygons(parts) if parts else None

    def rasterize(self, hw: HW, padded_hw: HW) -> Target:
        """Samples the shape: inside is where a ray crosses the outline an odd number of times.

        Args:
            hw: the picture's size in the input; nothing outside it is set.
            padded_hw: the input's size.
        """
        [mask], [center] = rasterize((self,), hw, padded_hw)
        return Target(mask, (float(center[0]), float(center[1])))

    def bitmap(self, hw: HW) -> Bitmap:
        """Every pixel of the shape that lies in a picture of size ``hw``, by the rule of :meth:`rasterize`."""
        points = np.concatenate(self.parts)
        (x0, y0), (x1, y1) = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
        ys, xs = np.arange(max(y0, 0), min(y1, hw[0])), np.arange(max(x0, 0), min(x1, hw[1]))
        inside = np.zeros((len(ys), len(xs)), bool)
        for part in self.parts:
            inside |= _inside(part, ys + 0.5, xs + 0.5)
        tight = Bitmap.of(inside.view(np.uint8))
        return Bitmap(tight.pixels, tight.top + max(int(y0), 0), tight.left + max(int(x0), 0))

    def within(self, hw: HW) -> Shape:
        """The same pixels in a picture that goes on beyond ``hw``: a bitmap where the polygons would go on too."""
        points = np.concatenate(self.parts)
        inside = bool((points >= 0).all() and (points <= hw[::-1]).all())
        return self if inside else self.bitmap(hw)


@dataclass(frozen=True, slots=True)
class Bitmap:
    """One instance as pixels, cut to its extent.

    Attributes:
        pixels: (h, w) uint8 of 0 and 1.
        top: row of its first pixel in the picture.
        left: column of its first pixel in the picture.
    """

    pixels: Bits
    top: int
    left: int

    @classmethod
    def of(cls, mask: Bits) -> Bitmap:
        """Cuts a full-size mask (H, W) to its extent."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 0:
            return cls(np.zeros((0, 0), np.uint8), 0, 0)
        window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls(np.ascontiguousarray(window), int(rows[0]), int(columns[0]))

    def resized(self, old_hw: HW, new_hw: HW) -> Bitmap:
        """Follows a resize of the picture, nearest neighbour."""
        rows = _nearest(old_hw[0], new_hw[0]) - self.top
        columns = _nearest(old_hw[1], new_hw[1]) - self.left
        in_rows = np.flatnonzero((rows >= 0) & (rows < self.pixels.shape[0]))
        in_columns = np.flatnonzero((columns >= 0) & (columns < self.pixels.shape[1]))
        if len(in_rows) == 0 or len(in_columns) == 0:
            return Bitmap(np.zeros((0, 0), np.uint8), 0, 0)
        pixels = self.pixels[np.ix_(rows[in_rows], columns[in_columns])]
        return Bitmap(pixels, int(in_rows[0]), int(in_columns[0]))

    def flipped(self, width: int) -> Bitmap:
        """Follows a left-right flip."""
        return Bitmap(self.pixels[:, ::-1], self.top, width - self.left - self.pixels.shape[1])

    def transposed(self) -> Bitmap:
        """Follows an exchange of rows and columns."""
        return Bitmap(self.pixels.T, self.left, self.top)

    def cropped(self, window: Window) -> Bitmap | None:
        """Follows a crop; None where no pixel is left."""
        top, left = window.top - self.top, window.left - self.left
        rows = slice(max(top, 0), max(top + window.height, 0))
        columns = slice(max(left, 0), max(left + window.width, 0))
        part = Bitmap.of(self.pixels[rows, columns])
        if part.pixels.size == 0:
            return None
        return Bitmap(part.pixels, part.top + max(-top, 0), part.left + max(-left, 0))

    def rasterize(self, hw: HW, padded_hw: HW) -> Target:
        """Takes the pixels as they are; ``hw`` is the picture's size in the input."""
        height, width = self.pixels.shape
        ys = np.arange(self.top, min(self.top + height, hw[0]))
        xs = np.arange(self.left, min(self.left + width, hw[1]))
        return _to_target(self.pixels[: len(ys), : len(xs)].astype(bool), ys, xs, padded_hw)

    def bitmap(self, hw: HW) -> Bitmap:
        """The pixels in a picture of size ``hw``."""
        return self.cropped(Window(0, 0, *hw)) or Bitmap(np.zeros((0, 0), np.uint8), 0, 0)

    def within(self, hw: HW) -> Bitmap:
        """The same pixels in a picture that goes on beyond ``hw``."""
        return self.bitmap(hw)


Shape = Polygons | Bitmap


def rasterize(shapes: Sequence[Shape], hw: HW, padded_hw: HW) -> tuple[Bits, Floats]:
    """The targets of a picture's shapes, its polygons drawn all at once.

    Args:
        shapes: N shapes in the frame of the picture.
        hw: the picture's size in the input; nothing outside it is set.
        padded_hw: the input's size.

    Returns:
        masks (N, h, w) and centres (N, 2), each as in :class:`Target`.
    """
    masks = np.zeros((len(shapes), padded_hw[0] // MASK_STRIDE, padded_hw[1] // MASK_STRIDE), np.uint8)
    centers = np.empty((len(shapes), 2))
    outlined: dict[int, tuple[Floats, ...]] = {}
    for index, shape in enumerate(shapes):
        if isinstance(shape, Polygons):
            outlined[index] = shape.parts
        else:
            target = shape.rasterize(hw, padded_hw)
            masks[index], centers[index] = target.mask, target.center
    centers[list(outlined)] = draw(list(outlined.values()), hw, [masks[index] for index in outlined])
    return masks, centers


def _nearest(old: int, new: int) -> npt.NDArray[np.int64]:
    """Source row of each row after a nearest-neighbour resize, as OpenCV chooses it."""
    step = 1 / (new / old)  # not old / new: OpenCV rounds twice, and the row can depend on it
    return np.minimum((np.arange(new) * step).astype(np.int64), old - 1)


def _samples(low: float, high: float, size: int) -> npt.NDArray[np.int64]:
    """Pixel indices between two coordinates: all of a short extent, those that decide of a long one."""
    first, last = max(int(np.floor(low)), 0), min(int(np.ceil(high)), size)
    indices = np.arange(first, last)
    return indices if last - first <= FULL_SAMPLING else indices[is_central(indices)]


def _inside(part: Floats, ys: npt.NDArray[np.floating], xs: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Even-odd rule at the points ys × xs: (len(ys), len(xs))."""
    x0, y0 = part[:, 0, None], part[:, 1, None]
    x1, y1 = np.roll(x0, -1, axis=0), np.roll(y0, -1, axis=0)
    edge, row = np.nonzero((y0 <= ys) != (y1 <= ys))  # (V, rows)
    x0, y0, x1, y1 = x0[edge, 0], y0[edge, 0], x1[edge, 0], y1[edge, 0]
    crossing = x0 + (ys[row] - y0) * (x1 - x0) / (y1 - y0)
    column = np.searchsorted(xs, crossing)
    width = len(xs) + 1  # crossings right of every sample go to a column of their own
    toggles = np.bincount(row * width + column, minlength=len(ys) * width).astype(np.uint8) & 1
    odd = np.bitwise_xor.accumulate(toggles.reshape(len(ys), width), axis=1)
    return odd[:, :-1].astype(bool)


def _reaches(part: Floats, hw: HW) -> bool:
    """Whether a corner or a pixel of a part lies in a picture of a size."""
    if ((part > 0) & (part < hw[::-1])).all(axis=1).any():
        return True
    ys = _samples(part[:, 1].min(), part[:, 1].max(), hw[0])
    xs = _samples(part[:, 0].min(), part[:, 0].max(), hw[1])
    return bool(_inside(part, ys + 0.5, xs + 0.5).any())


def _to_target(
    inside: npt.NDArray[np.bool_], ys: npt.NDArray[np.int64], xs: npt.NDArray[np.int64], padded_hw: HW
) -> Target:
    mask = np.zeros((padded_hw[0] // MASK_STRIDE, padded_hw[1] // MASK_STRIDE), np.uint8)
    count = int(inside.sum())
    if count == 0:
        return Target(mask, NO_CENTER)
    center = (float(inside.sum(axis=1) @ ys) / count, float(inside.sum(axis=0) @ xs) / count)

    in_rows, in_columns = is_central(ys), is_central(xs)
    rows, columns = ys[in_rows], xs[in_columns]
    if len(rows) and len(columns):
        # Every cell has two central rows and columns; where the extent begins or ends between them one is empty.
        top, bottom = rows[0] // MASK_STRIDE, rows[-1] // MASK_STRIDE + 1
        left, right = columns[0] // MASK_STRIDE, columns[-1] // MASK_STRIDE + 1
        central = np.zeros((2 * (bottom - top), 2 * (right - left)), np.uint8)
        y, x = rows[0] % MASK_STRIDE - CENTRAL[0], columns[0] % MASK_STRIDE - CENTRAL[0]
        central[y : y + len(rows), x : x + len(columns)] = inside[np.ix_(in_rows, in_columns)]
        counts = central[0::2] + central[1::2]
        mask[top:bottom, left:right] = counts[:, 0::2] + counts[:, 1::2] >= MIN_CENTRAL
    return Target(mask, center)
