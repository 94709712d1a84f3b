"""The values that :mod:`solov2.weights.pickles` makes of what is not plain in a pickle, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

NUMBERS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
"""Types of numbers in NumPy's spelling."""

MAX_DIMENSIONS = 32
MAX_SIDE = 1 << 40
"""Above any array's; arithmetic with what a file may claim would never end."""

DEEPEST_TREE = 64
LARGEST_TREE = 100_000
"""Levels of a configuration, and values on one of them."""

LONGEST_REASON = 200
"""Characters of a text from elsewhere in one of our messages."""

Key = tuple[str, str]


def reason_of(error: BaseException) -> str:
    """What an error says, in one short line."""
    text = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
    return f"it refers to {text}, which is not in it" if isinstance(error, KeyError) else text


def checked_sides(sides: Any) -> tuple[int, ...]:
    """Sides, steps or places of an array as a file states them.

    Raises:
        ValueError: if there are too many, or one is below zero or absurdly large.
    """
    if not isinstance(sides, tuple | list) or len(sides) > MAX_DIMENSIONS:
        raise ValueError("an array with too many sides")
    if not all(isinstance(side, int) and 0 <= side < MAX_SIDE for side in sides):
        raise ValueError("an array with a side below zero or too long")
    return tuple(sides)


@dataclass(frozen=True)
class Name:
    """A module and what it names in it, not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Unread:
    """A value of a kind that has nothing to do with weights."""

    kind: str


@dataclass
class PickledType:
    """A NumPy number type while its pickle is read: ``code`` such as "f4", ``order`` "<", ">", "|" or "="."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        """The type; raises ValueError for what is not a number."""
        if self.code not in NUMBERS:
            raise ValueError(f"arrays of type {self.code[:20]!r}; expected numbers")
        return np.dtype(f"{self.order}{self.code}")


@dataclass
class PickledArray:
    """A NumPy array; None before its content was met, or where that is not numbers."""

    array: np.ndarray[Any, Any] | None = None

    def owned(self) -> np.ndarray[Any, Any]:
        """The array in memory of its own, by rows, in this machine's byte order; copied once, however often asked."""
        assert self.array is not None
        if not self.array.flags.owndata:
            self.array = np.array(self.array, self.array.dtype.newbyteorder("="), order="C")
        return self.array


class Budget:
    """Bytes that what a file brings to life may take."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size

    def spend(self, size: int) -> None:
        """Takes ``size`` bytes; raises ValueError when there are not as many."""
        self.left -= size
        if self.left < 0:
            raise ValueError(f"its arrays claim more than the {self.size} bytes it has")


def as_key(value: Any) -> Any:
    """A dictionary's key; raises ValueError for what may take any time and depth to hash, such as nested tuples."""
    if not isinstance(value, str | int | float | bytes | None):
        raise ValueError("a dictionary with keys that are neither text nor numbers")
    return value


def as_text(value: Any) -> str:
    """A text; raises ValueError for anything else, before it is printed or looked up, which may have no end."""
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} in the place of a text")
    return value


def check_tree(value: Any) -> None:
    """Looks whether a value can be printed: lists that hold one another a few times over print as more than memory.

    Raises:
        ValueError: if it is deeper or larger than any configuration.
    """
    level = [value]
    for _ in range(DEEPEST_TREE):
        level = list(islice((item for outer in level for item in _items(outer)), LARGEST_TREE + 1))
        if not level:
            return
        if len(level) > LARGEST_TREE:
            break
    raise ValueError("its values are nested without end")


def _items(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ())


def byte_order(order: Any) -> str:
    """A NumPy byte order; raises ValueError for anything else."""
    if order not in ("<", ">", "|", "="):
        raise ValueError("an unknown byte order")
    return str(order)


class Maker:
    """Makes what the functions that weights name would make.

    Args:
        budget: for the arrays; texts and dictionaries get another of its size.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.texts = Budget(budget.size)

    def functions(self) -> dict[Key, Callable[..., object]]:
        """The functions that pickles of plain values and arrays name."""
        known: dict[Key, Callable[..., object]] = {
            ("_codecs", "encode"): self._encode,
            ("collections", "OrderedDict"): self._dict,
            ("builtins", "dict"): self._dict,
            ("builtins", "bytes"): lambda: b"",  # how those of length 0 are written in protocols 0 to 2
            **{("builtins", name): _collection for name in ("list", "tuple", "set", "frozenset")},
            **{("builtins", name): lambda *_: Unread("a number or slice") for name in ("complex", "slice")},
            ("numpy", "dtype"): _type,
            ("numpy", "ndarray"): _empty,
        }
        for package in ("numpy.core", "numpy._core"):  # of NumPy 1 and of NumPy 2
            known[f"{package}.multiarray", "_reconstruct"] = _empty
            known[f"{package}.multiarray", "scalar"] = self._scalar
            known[f"{package}.numeric", "_frombuffer"] = self._of_buffer
        return known

    def fill(
        self, target: PickledArray, version: int, shape: Any, kind: PickledType, by_columns: bool, content: Any
    ) -> None:
        """Gives an array the state that NumPy pickles."""
        if kind.code in NUMBERS:
            target.array = self._array(kind, shape, self._bytes(content), "F" if by_columns else "C")

    def _of_buffer(self, content: bytes, kind: PickledType, shape: Any, order: str = "C") -> PickledArray:
        found = PickledArray()
        self.fill(found, 1, shape, kind, order == "F", content)
        return found

    def _scalar(self, kind: PickledType, content: Any = b"") -> object:
        if kind.code not in NUMBERS:
            return Unread("numpy scalar")
        return self._array(kind, (), self._bytes(content), "C").item()

    def _array(self, kind: PickledType, shape: Any, content: bytes, order: str) -> np.ndarray[Any, Any]:
        dtype = kind.numpy()
        expected = math.prod(checked_sides(shape)) * dtype.itemsize
        if expected != len(content):
            raise ValueError(f"an array with {len(content)} bytes; expected {expected}")
        self.budget.spend(len(content))
        return np.frombuffer(content, dtype).reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]

    def _bytes(self, content: Any) -> bytes:
        return self._encode(content) if isinstance(content, str) else content

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        # How bytes are written in pickles of protocol 2.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes in encoding {as_text(encoding)[:20]!r}")
        self.texts.spend(len(text))
        return text.encode("latin1")

    def _dict(self, items: Any = ()) -> dict[Any, Any]:
        if isinstance(items, dict):
            return items
        self.texts.spend(4 * len(items))  # one list may be the argument of many calls
        return {as_key(name): value for name, value in items}


def _collection(items: Any = ()) -> list[Any] | tuple[Any, ...]:
    # Not a copy: one list may be the argument of many calls.
    if not isinstance(items, list | tuple):
        raise ValueError("a collection of what is none")
    return items


def _type(code: Any, *_: Any) -> PickledType:
    return PickledType(as_text(code)[:20])


def _empty(*_: Any) -> PickledArray:
    return PickledArray()
