"""Objects of one picture pasted into another, with their masks (Ghiasi et al., "Simple Copy-Paste", 2021).

The paper found that blurring the edges of what is pasted gains nothing: pixels are replaced, not mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from solov2.data.crop import MIN_VISIBLE
from solov2.data.sample import Sample
from solov2.data.shapes import Bitmap, Shape
from solov2.structures import HW

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CopyPaste:
    """Pastes some of another training picture's objects.

    The other picture has gone through the transforms that stand before this one in the list.

    Attributes:
        prob: probability that anything is pasted.
        max_pastes: the most objects pasted; their number is drawn evenly from 1 to it.
    """

    prob: float = 0.5
    max_pastes: int = 20

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The picture as it is: there is no other one to take objects from."""
        return sample

    def pair(self, sample: Sample, rng: np.random.Generator, other: Callable[[], Sample]) -> Sample:
        """Pastes with the given probability; from a picture without objects nothing."""
        if rng.random() >= self.prob:
            return sample
        source = other()
        count = len(source.shapes)
        if count == 0:
            return sample
        drawn = int(rng.integers(1, min(self.max_pastes, count) + 1))
        return paste(sample, source, np.sort(rng.choice(count, drawn, replace=False)).tolist())


def paste(sample: Sample, source: Sample, rows: Sequence[int]) -> Sample:
    """Pastes instances of one picture into another.

    Together they stay where they were, or are moved as little as it takes to lie in the picture; what does not fit is
    cut off. Instances below lose the pixels that are covered and get the box of what is left. An instance of
    which less than a tenth of its pixels is left is dropped, one below or one pasted. Those pasted come last, so
    that they win the grid cells where they lie over others. Known are the categories that both pictures were
    annotated for.

    Args:
        sample: the picture to paste into.
        source: the picture to take from.
        rows: which of its instances.
    """
    taken = {row: source.shapes[row].bitmap(source.hw) for row in rows}
    taken = {row: bitmap for row, bitmap in taken.items() if bitmap.pixels.size > 0}
    if not taken:
        return sample
    down, right = _shift(list(taken.values()), sample.hw)
    moved = {row: _moved(bitmap, down, right, sample.hw) for row, bitmap in taken.items()}
    pasted = {row: bitmap for row, bitmap in moved.items() if _enough(bitmap, taken[row])}

    image, covered = sample.image.copy(), np.zeros(sample.hw, bool)
    for bitmap in pasted.values():
        place, pixels = _place(bitmap), bitmap.pixels.astype(bool)
        origin = _place(Bitmap(bitmap.pixels, bitmap.top - down, bitmap.left - right))
        image[place][pixels] = source.image[origin][pixels]
        covered[place] |= pixels

    below = {row: _uncovered(shape, covered) for row, shape in enumerate(sample.shapes)}
    kept = {row: shape for row, shape in below.items() if shape is not None}
    boxes = [sample.boxes[row] if shape is sample.shapes[row] else _box(shape) for row, shape in kept.items()]
    boxes += [_box(bitmap) for bitmap in pasted.values()]
    return replace(
        sample,
        image=image,
        labels=np.concatenate([sample.labels[list(kept)], source.labels[list(pasted)]]).astype(np.int64),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        shapes=(*kept.values(), *pasted.values()),
        known=_known_in_both(sample, source) if pasted else sample.known,
    )


def _known_in_both(sample: Sample, source: Sample) -> Bools | None:
    """Categories of which neither picture hides an object without annotation.

    Only objects are pasted, but their pixels may show more than themselves: a tie on a person, in a picture that was
    annotated for persons alone. Counting it as absent would teach what is wrong, counting nothing only teaches less.
    """
    if sample.known is None or source.known is None:
        return source.known if sample.known is None else sample.known
    return sample.known & source.known


def _shift(bitmaps: Sequence[Bitmap], hw: HW) -> tuple[int, int]:
    """Rows down and columns to the right that bring the bitmaps' common extent into a picture, or to its start."""
    first = np.min([(bitmap.top, bitmap.left) for bitmap in bitmaps], axis=0)
    last = np.max([(b.top + b.pixels.shape[0], b.left + b.pixels.shape[1]) for b in bitmaps], axis=0)
    down, right = np.maximum(np.minimum(0, np.array(hw) - last), -first).tolist()
    return down, right


def _moved(bitmap: Bitmap, down: int, right: int, hw: HW) -> Bitmap:
    return Bitmap(bitmap.pixels, bitmap.top + down, bitmap.left + right).bitmap(hw)


def _uncovered(shape: Shape, covered: Bools) -> Shape | None:
    """What is left of a shape; the shape itself where no pixel of it is covered, None where too little is left."""
    if not covered[_region(shape)].any():
        return shape
    whole = shape.bitmap((covered.shape[0], covered.shape[1]))
    hidden = covered[_place(whole)]
    if not (whole.pixels.astype(bool) & hidden).any():
        return shape
    rest = Bitmap.of(np.where(hidden, 0, whole.pixels).astype(np.uint8))
    rest = Bitmap(rest.pixels, rest.top + whole.top, rest.left + whole.left)
    return rest if _enough(rest, whole) else None


def _enough(rest: Bitmap, whole: Bitmap) -> bool:
    left, before = int(np.count_nonzero(rest.pixels)), int(np.count_nonzero(whole.pixels))
    return left >= max(MIN_VISIBLE * before, 1)


def _region(shape: Shape) -> tuple[slice, slice]:
    """Rows and columns that hold every pixel of a shape."""
    if isinstance(shape, Bitmap):
        return _place(shape)
    points = np.concatenate(shape.parts)
    (x0, y0), (x1, y1) = np.floor(points.min(axis=0)).clip(0), np.ceil(points.max(axis=0)).clip(0)
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _place(bitmap: Bitmap) -> tuple[slice, slice]:
    height, width = bitmap.pixels.shape
    return slice(bitmap.top, bitmap.top + height), slice(bitmap.left, bitmap.left + width)


def _box(shape: Shape) -> tuple[float, float, float, float]:
    rows, columns = _region(shape)
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)
