"""What runs a file: by its kind, by what is installed and, on request, by the clock."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from solov2.errors import ConfigError, WeightsError
from solov2.runtime.interface import EXPORT_KEY, ONNX_SUFFIX, OPENVINO_SUFFIX, PICTURE, Runtime, Session
from solov2.runtime.on_onnxruntime import OnnxRuntimeSession
from solov2.runtime.on_openvino import OpenVinoSession

logger = logging.getLogger(__name__)

FASTEST = "fastest"

TIMED_SIDE = 448
"""Of the picture that is timed where a file takes any size."""

TIMED_RUNS = 3


def choose(path: Path, runtime: str = "auto") -> Runtime:
    """The run time of a file.

    Args:
        path: ending in ``.onnx`` or ``.xml``.
        runtime: its name; "auto" takes the first of those that run such files which is installed.

    Raises:
        ConfigError: if it cannot run this kind of file.
    """
    fitting = FITTING[path.suffix]
    if runtime == "auto":
        return next(iter(_installed(path)), fitting[0])
    chosen = next((name for name in fitting if name == runtime), None)
    if chosen is None:
        raise ConfigError(f"{path}: {runtime} cannot run it; expected auto or {' or '.join(fitting)}")
    return chosen


def open_session(path: Path, device: str = "auto", runtime: str = "auto") -> tuple[Runtime, Session]:
    """A file made ready to run, and by what.

    Args:
        path: of the file, which is there.
        device: as for :func:`solov2.runtime.exported.open_exported`.
        runtime: as for :func:`choose`, or "fastest": whatever runs a picture in the least time now. That is looked
            for anew each time; two run times agree but for rounding.

    Raises:
        WeightsError: if the file cannot be read.
        ConfigError: if the run time cannot run this kind of file, or has no such device.
        MissingDependencyError: if the run time is not installed.
    """
    names = _installed(path) if runtime == FASTEST else ()
    if len(names) < 2:
        chosen = choose(path, "auto" if runtime == FASTEST else runtime)
        return chosen, RUNTIMES[chosen](path, device)
    sessions: dict[Runtime, Session] = {}
    seconds: dict[Runtime, float] = {}
    for name in names:
        try:
            sessions[name] = RUNTIMES[name](path, device)
            seconds[name] = _seconds(sessions[name])
        except (ConfigError, WeightsError) as error:  # the other one may have the device, or run the file
            wrong = error
    if not seconds:
        raise wrong
    fastest = min(seconds, key=lambda name: seconds[name])
    told = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
    logger.info("%s: %s is fastest (%s)", path, fastest, told)
    return fastest, sessions[fastest]


def _installed(path: Path) -> Sequence[Runtime]:
    return [name for name in FITTING[path.suffix] if find_spec(name) is not None]


def _seconds(session: Session) -> float:
    """The least time that a picture of noise takes."""
    about = json.loads(session.metadata.get(EXPORT_KEY, "{}"))
    height, width = about.get("size") or (TIMED_SIDE, TIMED_SIDE)
    images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    sizes = np.array([[height, width]], np.int64)
    inputs = (images, sizes, sizes) if about.get("masks") == PICTURE else (images, sizes)
    times = []
    for _ in range(TIMED_RUNS + 1):  # the first one makes ready
        started = time.perf_counter()
        session(*inputs)
        times.append(time.perf_counter() - started)
    return min(times[1:])


FITTING: dict[str, tuple[Runtime, ...]] = {ONNX_SUFFIX: ("onnxruntime", "openvino"), OPENVINO_SUFFIX: ("openvino",)}
"""What runs which files, first choice first."""

RUNTIMES: dict[Runtime, Callable[[Path, str], Session]] = {
    "onnxruntime": OnnxRuntimeSession,
    "openvino": OpenVinoSession,
}
