"""What a piece of work adds to a process's memory at its peak (Linux)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_mb(make: Callable[..., Callable[[], object]], *case: Any, warm_up: int = 0) -> float:
    """Runs one case in a process of its own.

    Args:
        make: gives what is to be measured, for a case; a function of a module, as another process imports it.
        case: its arguments.
        warm_up: runs before the one that is measured.

    Returns:
        Megabytes above what the process held before.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(make, case, warm_up, sender))
    process.start()
    peak = float(receiver.recv())
    process.join()
    return peak


def _measure(make: Callable[..., Callable[[], object]], case: tuple[Any, ...], warm_up: int, answer: Any) -> None:
    run = make(*case)
    for _ in range(warm_up):
        run()
    before = _resident_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
    run()
    answer.send((_resident_kb("VmHWM") - before) / 1024)


def _resident_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
