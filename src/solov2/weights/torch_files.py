"""Files of ``torch.save``, both kinds, read without running anything they contain.

Since PyTorch 1.6 they are zip archives with a pickle and one entry per storage; before, pickles one
after another and then the storages. Why not ``torch.load``: see :mod:`solov2.weights.pickles`.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from solov2.errors import WeightsError
from solov2.weights.pickled import Budget, Key, Name, Unread, as_text, checked_sides, reason_of
from solov2.weights.pickles import read_pickle

ZIP_MAGIC = b"PK"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_VIEWS = 2
"""Tensors may share storages; together they may be as many times the file as this."""

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class TensorRef:
    """A tensor that has not been read: its type, its storage's key and its place in that, in elements."""

    dtype: torch.dtype
    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class TorchFile:
    """What a file of ``torch.save`` holds.

    Attributes:
        content: plain values, with :class:`TensorRef` for tensors.
        read_storage: the bytes of a storage by its key; raises KeyError where there is none.
        size: of the file, in bytes.
    """

    content: Any
    read_storage: Callable[[str], bytes]
    size: int
    _storages: dict[str, bytearray] = field(default_factory=dict)

    @cached_property
    def _budget(self) -> Budget:
        return Budget(MAX_VIEWS * self.size)

    def tensor(self, ref: TensorRef) -> Tensor:
        """Reads a tensor; those of one storage share its memory.

        Raises:
            WeightsError: if its storage is missing, or ends before the tensor does.
        """
        try:
            return self._tensor(ref)
        except DAMAGE as error:
            raise WeightsError(f"damaged ({reason_of(error)}); get it again") from None

    def _tensor(self, ref: TensorRef) -> Tensor:
        if ref.storage not in self._storages:
            self._storages[ref.storage] = bytearray(self.read_storage(ref.storage))
        content = self._storages[ref.storage]
        count, itemsize = 1, ref.dtype.itemsize
        for side in ref.size:
            count *= side
        if count == 0:
            return torch.empty(ref.size, dtype=ref.dtype)
        last = ref.offset + sum((side - 1) * step for side, step in zip(ref.size, ref.stride, strict=True))
        if (last + 1) * itemsize > len(content):
            raise ValueError(f"a tensor of {last + 1} numbers in a storage of {len(content)} bytes")
        self._budget.spend(count * itemsize)
        whole = torch.frombuffer(content, dtype=ref.dtype, count=len(content) // itemsize)
        return whole.as_strided(ref.size, ref.stride, ref.offset)


def read_torch(data: bytes) -> TorchFile:
    """Reads what ``torch.save`` wrote, without its tensors' numbers.

    Args:
        data: the whole file.

    Raises:
        WeightsError: if it is damaged or holds what weights have no use for; says what, in one
            line, without the file.
    """
    try:
        return _read_zip(data) if data.startswith(ZIP_MAGIC) else _read_legacy(data)
    except DAMAGE as error:
        raise WeightsError(f"damaged, or no weights ({reason_of(error)}); get it again") from None


def is_legacy(data: bytes) -> bool:
    """Whether a pickle is the start of a file that ``torch.save`` wrote before PyTorch 1.6."""
    return LEGACY_MAGIC.to_bytes(10, "little") in data[:32]


def _read_zip(data: bytes) -> TorchFile:
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("a compressed archive, which torch.save does not write")
    if sum(entry.file_size for entry in entries) > len(data):
        raise ValueError(f"its entries claim more than the {len(data)} bytes it has")
    names = {entry.filename for entry in entries}
    folder = next((name.removesuffix("data.pkl") for name in sorted(names) if name.endswith("/data.pkl")), None)
    if folder is None:
        raise ValueError("an archive without data.pkl")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("numbers in big-endian order")
    content = _read_content(io.BytesIO(archive.read(f"{folder}data.pkl")), len(data))
    return TorchFile(content, lambda key: archive.read(f"{folder}data/{key}"), len(data))


def _read_legacy(data: bytes) -> TorchFile:
    stream = io.BytesIO(data)
    budget = Budget(len(data))
    if read_pickle(stream, budget) != LEGACY_MAGIC:
        raise ValueError("no file of torch.save")
    read_pickle(stream, budget)  # version
    if not read_pickle(stream, budget).get("little_endian", True):
        raise ValueError("numbers in big-endian order")
    itemsizes: dict[str, int] = {}
    content = _read_content(stream, len(data), itemsizes)
    places: dict[str, tuple[int, int]] = {}
    for key in map(as_text, read_pickle(stream, budget)):
        (count,) = struct.unpack("<q", stream.read(8))
        start, end = stream.tell(), stream.tell() + count * itemsizes[key]
        if not start <= end <= len(data):
            raise ValueError(f"storage {key[:40]!r} ends after the file")
        places[key] = start, end
        stream.seek(end)
    return TorchFile(content, lambda key: data[slice(*places[key])], len(data))


def _read_content(stream: io.BytesIO, size: int, itemsizes: dict[str, int] | None = None) -> Any:
    def storage_of(number: Any) -> tuple[torch.dtype, str] | Unread | Name:
        kind, storage, key = number[:3]
        if kind == "module" and isinstance(storage, Name):  # a class, in a model that was saved whole
            return storage
        if number[5:6] not in ((), (None,)):
            raise ValueError("storages inside others, which only PyTorch 0.1 wrote")
        if kind != "storage" or not isinstance(storage, Name) or not isinstance(key, str):
            raise ValueError("a reference to what is no storage")
        dtype = STORAGES.get(storage.name)
        if dtype is None:
            return Unread(str(storage))
        if itemsizes is not None:
            itemsizes[key] = dtype.itemsize
        return dtype, key

    return read_pickle(stream, Budget(size), REBUILT, storage_of)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRef | Unread:
    if isinstance(storage, Unread):
        return storage
    dtype, key = storage
    (start,), sides, steps = checked_sides((offset,)), checked_sides(size), checked_sides(stride)
    if len(sides) != len(steps):
        raise ValueError("a tensor with another number of steps than sides")
    return TensorRef(dtype, key, start, sides, steps)


def _parameter(tensor: Any, *_: Any) -> TensorRef | Unread:
    if not isinstance(tensor, TensorRef | Unread):
        raise ValueError("a parameter that is no tensor")
    return tensor


# What zipfile, struct and PyTorch find wrong with damaged files.
DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, RuntimeError),
    *(TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)
REBUILT: dict[Key, Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch", "Size"): checked_sides,
    ("torch", "device"): lambda *_: Unread("device"),
}
