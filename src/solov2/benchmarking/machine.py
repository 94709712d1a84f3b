"""What the machine is and can do, measured in the same run as what a model makes of it."""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from solov2.structures import HW

MATRIX_SIDE = 512
"""Rows and columns: three such matrices of float32 take 3 MB, which second-level caches hold."""

GPU_MATRIX_SIDE = 4096
"""A GPU needs more work at a time to be busy."""

SECONDS = 0.1
"""Of one measurement of the matrix rate."""

PACKAGES = ("torch", "numpy", "onnxruntime", "openvino")


class MatrixRate:
    """How fast the machine multiplies matrices, with the threads that PyTorch has now.

    Args:
        device: what computes.
        dtype: of the numbers.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._device = device
        self._side = MATRIX_SIDE if device.type == "cpu" else GPU_MATRIX_SIDE
        generator = torch.Generator().manual_seed(0)
        self._a, self._b = (torch.rand(self._side, self._side, generator=generator).to(device, dtype) for _ in range(2))
        self._out = torch.empty_like(self._a)

    def measure(self, seconds: float = SECONDS) -> float:
        """Floating-point operations a second, a multiplication and an addition being two."""
        count = 1
        while (elapsed := self._time(count)) < seconds:
            count *= 2
        return 2 * self._side**3 * count / elapsed

    def _time(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            torch.mm(self._a, self._b, out=self._out)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - started


def count_flops(network: nn.Module, batch: int, hw: HW) -> int:
    """Floating-point operations of one run: those of convolutions and matrix products, on which nearly all time goes.

    A multiplication and an addition are two. Nothing is computed: shapes suffice.

    Args:
        network: of pictures (B, 3, H, W).
        batch: B.
        hw: H and W.
    """
    shapes = copy.deepcopy(network).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shapes(torch.empty((batch, 3, *hw), device="meta"))
    return int(counter.get_total_flops())


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """What a piece of work adds at its peak to what was in use before it; None where that cannot be told.

    On a GPU PyTorch's own memory there; otherwise the process's, which Linux alone tells.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
        before = _kilobytes(status, "VmRSS")
        run()
        return max(_kilobytes(status, "VmHWM") - before, 0) << 10
    except OSError:
        return None


def _kilobytes(status: Path, field: str) -> int:
    lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def keep_to_threads(count: int) -> None:
    """Makes this process compute with so many threads, other run times too where the system can bind it to cores."""
    torch.set_num_threads(count)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:count])


def describe(device: torch.device) -> dict[str, Any]:
    """The machine and its software as plain values."""
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
