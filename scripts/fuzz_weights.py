#!/usr/bin/env python3
"""Damages small weights files of every kind and reads them: an error in one line, or a sound read.

    scripts/fuzz_weights.py [COUNT [SEED]]

Runs in a process of its own whose memory is capped; prints how many files of each kind were read
and how many refused, and ends with 1 if anything else happened.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.weights.files import METADATA_KEY, WeightsFile, write_weights
from solov2.weights.foreign import ForeignWeights, read_any
from solov2.weights.importing import import_pretrained, import_state
from solov2.weights.load import load_into

MEMORY = 8 << 30
"""Address space, bytes: PyTorch's libraries take some of it."""

SECONDS = 10
"""For one file."""

LARGEST_SHARE = 4
"""Bytes of tensors per byte of the file."""

OURS = {"grid_head.category_output.weight": (3, 4, 3, 3), "grid_head.category_output.bias": (3,)}
PADDLE = {"solov2_head.bbox_head.solo_cate.weight": (3, 4, 3, 3), "solov2_head.bbox_head.solo_cate.bias": (3,)}
AUTHORS = {"bbox_head.solo_cate.weight": (3, 4, 3, 3), "bbox_head.solo_cate.bias": (3,)}


class TooSlow(BaseException):  # not an error that anything may catch
    """Raised by the clock."""


def arrays(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Numbers for names."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def pdparams(protocol: int) -> bytes:
    """A file of PaddleDetection."""
    named = {name: (f"conv_{number}", array) for number, (name, array) in enumerate(arrays(PADDLE).items())}
    content = {**named, "StructuredToParameterName@@": dict.fromkeys(PADDLE, "conv")}
    return pickle.dumps(content, protocol=protocol)


def pth(*, legacy: bool) -> bytes:
    """A file of the authors."""
    state = OrderedDict((name, torch.from_numpy(array)) for name, array in arrays(AUTHORS).items())
    stream = io.BytesIO()
    content = {"meta": {"CLASSES": ("a", "b", "c"), "epoch": 1}, "state_dict": state, "optimizer": {"lr": [0.1, None]}}
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def rezipped(content: bytes) -> bytes:
    """A zip file of PyTorch with another pickle in it, so that its checksum is right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pth(legacy=False))) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, content if entry.filename.endswith("/data.pkl") else old.read(entry))
    return stream.getvalue()


def zipped_pickle() -> bytes:
    """The pickle in a zip file of PyTorch."""
    with zipfile.ZipFile(io.BytesIO(pth(legacy=False))) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def own() -> WeightsFile:
    """Weights of ours."""
    state = {name: torch.from_numpy(array) for name, array in arrays(OURS).items()}
    return WeightsFile(state, {"model": {}}, tuple(Category(number, "a") for number in range(3)), 0.5, {"data": "none"})


def safetensors(folder: Path) -> bytes:
    """A file of ours."""
    path = folder / "own.safetensors"
    write_weights(path, own())
    data = path.read_bytes()
    path.unlink()
    return data


def ckpt() -> bytes:
    """A checkpoint of ours."""
    weights, stream = own(), io.BytesIO()
    state = {f"model.{name}": tensor for name, tensor in weights.state.items()}
    torch.save({METADATA_KEY: weights.metadata(), "state_dict": state, "loops": {"epoch": 3}}, stream)
    return stream.getvalue()


def flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Other bytes here and there."""
    for place in rng.integers(0, len(data), rng.integers(1, 6)):
        data[place] = rng.integers(256)
    return data


def truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The start of it."""
    return data[: rng.integers(0, len(data))]


def insert(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Bytes between."""
    place = rng.integers(0, len(data))
    return data[:place] + bytearray(rng.bytes(int(rng.integers(1, 9)))) + data[place:]


def splice(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A part of it elsewhere."""
    start, size, target = rng.integers(0, len(data)), rng.integers(1, 64), rng.integers(0, len(data))
    return data[:target] + data[start : start + size] + data[target + rng.integers(0, 2) * size :]


WRAPPED = {"pickle.pth": rezipped}
MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (flip, truncate, insert, splice)


def check(path: Path, size: int) -> str:
    """Reads a file and uses what is in it; "read" if it was sound, "refused" for an error of ours."""
    try:
        weights = read_any(path)
        tensors = weights.tensors if isinstance(weights, ForeignWeights) else weights.state
        assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= LARGEST_SHARE * size
        assert all(isinstance(name, str) for name in tensors)
        if isinstance(weights, ForeignWeights):
            import_pretrained(OURS, weights)
            state = import_state(OURS, weights).state
        else:
            model = torch.nn.Module()
            model.grid_head = torch.nn.Module()
            model.grid_head.category_output = torch.nn.Conv2d(4, 3, 3)
            state = dict(load_into(model, weights, path).state)
    except WeightsError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal, f"several lines: {refusal}"
        assert refusal.startswith(str(path)), f"no file name: {refusal}"
        return "refused"
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == OURS
    assert all(tensor.isfinite().all() for tensor in state.values())
    return "read"


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Reads ``count`` damaged files in an empty folder; what became of them, and what should not have."""
    kinds = {
        "protocol2.pdparams": pdparams(2),
        "protocol4.pdparams": pdparams(4),
        "zip.pth": pth(legacy=False),
        "pickle.pth": zipped_pickle(),
        "legacy.pth": pth(legacy=True),
        "own.safetensors": safetensors(folder),
        "own.ckpt": ckpt(),
    }
    found: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for name, data in kinds.items():
        (folder / name).write_bytes(WRAPPED.get(name, bytes)(data))
        assert check(folder / name, len(data)) == "read", name
        (folder / name).unlink()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = list(kinds)[number % len(kinds)]
        data = bytearray(kinds[name])
        for _ in range(rng.integers(1, 3)):
            data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng) or data
        path, start = folder / name, time.monotonic()
        written = WRAPPED.get(name, bytes)(bytes(data))
        path.write_bytes(written)
        try:
            outcome = check(path, len(written))
        except (Exception, TooSlow) as error:
            outcome = "wrong"
            wrong.append(f"{name}, file {number} of seed {seed}: {error!r}"[:300])
        if list(folder.iterdir()) != [path] or path.read_bytes() != written:
            outcome = "wrong"
            wrong.append(f"{name}, file {number} of seed {seed}: left something behind")
        if time.monotonic() - start > SECONDS:
            wrong.append(f"{name}, file {number} of seed {seed}: {time.monotonic() - start:.0f} s")
        found[name, outcome] += 1
        path.unlink()
    return found, wrong


def _worker(count: int, seed: int) -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooSlow

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, stop)
    start, found, wrong = time.monotonic(), Counter[tuple[str, str]](), list[str]()
    for first in range(0, count, 100):
        signal.alarm(20 * SECONDS)  # for a hundred files, which take a second
        with tempfile.TemporaryDirectory() as folder:
            some, errors = fuzz(min(100, count - first), seed + first, Path(folder))
        found += some
        wrong += errors
    signal.alarm(0)
    for name in sorted({name for name, _ in found}):
        print(f"{name:<20} read {found[name, 'read']:>6}  refused {found[name, 'refused']:>6}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{found.total()} files, {len(wrong)} wrong, {time.monotonic() - start:.0f} s, {peak:.0f} MB at most")
    print(*wrong[:20], sep="\n")
    sys.exit(1 if wrong else 0)


def main(count: str = "10000", seed: str = "0") -> None:
    """Runs it in a process of its own, so that a crash is seen as well."""
    worker = multiprocessing.get_context("spawn").Process(target=_worker, args=(int(count), int(seed)))
    worker.start()
    worker.join()
    if worker.exitcode:
        sys.exit(f"failed with {worker.exitcode}")


if __name__ == "__main__":
    main(*sys.argv[1:])
