"""COCO's compressed run lengths, read with care before pycocotools gets them."""

from __future__ import annotations

import numpy as np

MORE_LETTERS, SIGN = 32, 16
"""Bits of a letter of compressed run lengths."""

MAX_LETTERS = 7
"""Of one run length: 35 bits, more than any picture has pixels."""


def decompress(counts: str) -> list[int] | None:
    """The run lengths in a COCO RLE's compressed text; None if it is damaged.

    pycocotools reads and writes outside its memory where they do not fill the picture, so that they
    are checked before it sees them. A letter holds five bits and whether more follow; from the fourth
    run on, the difference to the run before the last is stored.
    """
    letters = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    if letters.min() < 0 or letters.max() >= 64 or letters[-1] & MORE_LETTERS:
        return None
    ends = np.flatnonzero(letters & MORE_LETTERS == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MAX_LETTERS:
        return None
    places = np.arange(len(letters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((letters & 31) << 5 * places, starts)
    values -= (letters[ends] & SIGN != 0) * (1 << 5 * lengths)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    runs: list[int] = values.tolist()
    return runs
