"""Instances as PaddleHub sends them: raw arrays in base64, made piece by piece, so that no answer is ever held whole.

``segm`` is (n, h, w) int32 of 0 and 1, ``label`` (n,) int64, ``score`` (n,) float32.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence

from solov2.structures import Instances

PIXEL_BYTES = 4
PIECE_PIXELS = 1 << 18
"""Of a mask that are encoded at a time."""

_BEFORE, _AFTER = b'{"msg":"","results":', b',"status":"000"}\n'
_LABEL, _SCORE, _SEGM, _END = b'{"label":"', b'","score":"', b'","segm":"', b'"}'


def raw_size(found: Instances) -> int:
    """Bytes of the masks before base64."""
    return len(found) * found.original_hw[0] * found.original_hw[1] * PIXEL_BYTES


def answer_length(pictures: Sequence[Instances]) -> int:
    """Bytes of :func:`answer_parts` together."""
    frame = len(_BEFORE) + len(_AFTER) + (0 if len(pictures) == 1 else 1 + len(pictures))
    each = len(_LABEL) + len(_SCORE) + len(_SEGM) + len(_END)
    return frame + sum(
        each + sum(map(_base64_length, (8 * len(found), 4 * len(found), raw_size(found)))) for found in pictures
    )


def answer_parts(pictures: Sequence[Instances]) -> Iterator[bytes]:
    """The envelope of a success, keys in alphabetical order as PaddleHub's: one object, or a list of several."""
    yield _BEFORE
    several = len(pictures) != 1
    for number, found in enumerate(pictures):
        if several:
            yield b"," if number else b"["
        yield _LABEL + base64.b64encode(found.labels.astype("<i8").tobytes())
        yield _SCORE + base64.b64encode(found.scores.astype("<f4").tobytes())
        yield _SEGM
        yield from _base64_parts(_mask_bytes(found))
        yield _END
    if several:
        yield b"]"
    yield _AFTER


def _mask_bytes(found: Instances) -> Iterator[bytes]:
    for row in range(len(found)):
        pixels = found[row : row + 1].masks.ravel()
        for start in range(0, len(pixels), PIECE_PIXELS):
            yield pixels[start : start + PIECE_PIXELS].astype("<i4").tobytes()


def _base64_parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""  # base64 takes three bytes at a time
    for piece in pieces:
        whole = rest + piece
        cut = len(whole) - len(whole) % 3
        rest = whole[cut:]
        yield base64.b64encode(whole[:cut])
    yield base64.b64encode(rest)


def _base64_length(size: int) -> int:
    return (size + 2) // 3 * 4
