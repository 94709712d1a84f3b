"""COCO's compressed run lengths: written from crops, and read with care before pycocotools gets them.

A run is stored as letters of five bits each, the lowest bits first, with a sixth that says whether more follow. From
the fourth run on it is the difference to the run before the last that is stored, which may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MORE_LETTERS, SIGN = 32, 16
"""Bits of a letter of compressed run lengths."""

MAX_LETTERS = 7
"""Of one run length: 35 bits, more than any picture has pixels."""

BITS = 5
"""Of a number, in a letter."""

ZERO = ord("0")
"""The letter of five zero bits."""


def runs_of_crop(crop: npt.NDArray[np.bool_], origin_xy: tuple[int, int], hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Run lengths of a mask of which only the part inside a box is given, in proportion to the box.

    Args:
        crop: (rows, columns) inside the box.
        origin_xy: where its first pixel lies in the picture.
        hw: height and width of the picture.

    Returns:
        Lengths of runs of 0 and 1 in turn, beginning with 0, down the picture's columns from left to right.
    """
    (height, width), (x0, y0), (rows, columns) = hw, origin_xy, crop.shape
    # Below each column of the box a pixel that is not of the mask, unless the box is as high as the picture:
    # then a run may go on at the top of the next column.
    step = rows + (rows < height)
    line = np.zeros(columns * step + 2, bool)
    line[1:-1].reshape(columns, step)[:, :rows] = crop.T
    turns = np.flatnonzero(line[1:] != line[:-1])
    column, row = np.divmod(turns, max(step, 1))
    places = (column + x0) * height + row + (y0 if rows < height else 0)
    end = height * width
    if len(places) and places[-1] == end:  # the mask reaches the last pixel
        return np.diff(places, prepend=0)
    return np.diff(places, prepend=0, append=end)


def compress(many: Sequence[npt.NDArray[np.int64]]) -> list[str]:
    """Run lengths of several masks, none without a run, as COCO's compressed text."""
    if not many:
        return []
    counts = np.array([len(runs) for runs in many])
    values = np.concatenate(many)
    place = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)  # in its own mask
    stored = values.copy()
    stored[2:] -= np.where(place[2:] > 2, values[:-2], 0)
    lengths = np.ones(len(stored), np.int64)  # in letters: of so many bits, one of them for the sign
    for letters in range(1, MAX_LETTERS):
        limit = 1 << BITS * letters - 1
        lengths += (stored < -limit) | (stored >= limit)
    ends = np.cumsum(lengths)
    position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    text = (np.repeat(stored, lengths) >> BITS * position & 31) | MORE_LETTERS
    text[ends - 1] -= MORE_LETTERS
    whole = (text + ZERO).astype(np.uint8).tobytes().decode("ascii")
    last = ends[np.cumsum(counts) - 1].tolist()
    return [whole[start:stop] for start, stop in zip([0, *last], last, strict=False)]


def decompress(counts: str) -> list[int] | None:
    """The run lengths in a COCO RLE's compressed text; None if it is damaged.

    pycocotools reads and writes outside its memory where they do not fill the picture, so that they
    are checked before it sees them.
    """
    letters = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ZERO
    if letters.min() < 0 or letters.max() >= 64 or letters[-1] & MORE_LETTERS:
        return None
    ends = np.flatnonzero(letters & MORE_LETTERS == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_LETTERS:
        return None
    places = np.arange(len(letters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((letters & 31) << BITS * places, starts)
    values -= (letters[ends] & SIGN != 0) * (1 << BITS * lengths)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    runs: list[int] = values.tolist()
    return runs
