"""solov2 serve: models behind HTTP, with PaddleHub's protocol, one of our own, and a page."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from solov2.serve.hub_config import HubConfig
    from solov2.serve.options import Limits, ServeOptions

logger = logging.getLogger(__name__)

KEY_VARIABLE = "SOLOV2_API_KEY"
PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}
"""What the extra ``serve`` installs, by the name it is imported under."""


def run(arguments: argparse.Namespace) -> int:
    """Runs the command until it is stopped."""
    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingDependencyError(package, "serve", "the service")
    options = read_options(arguments)
    from solov2.serve.process import serve

    serve(options)
    return 0


def read_options(arguments: argparse.Namespace) -> ServeOptions:
    """The options of the flags, and of the configuration file that they may name.

    Raises:
        ConfigError: if a value is not allowed or the file cannot be used.
    """
    from solov2.serve.hub_config import HubConfig, read_hub_config
    from solov2.serve.options import DEFAULT_HOST, DEFAULT_NAME, DEFAULT_PORT, ServeOptions

    if arguments.use_multiprocess or arguments.workers or arguments.modules_info:
        logger.info("one process owns the models, and requests share batches: the flags for several have no effect")
    config = HubConfig() if arguments.config is None else read_hub_config(Path(arguments.config))
    port = config.port if arguments.port is None else arguments.port
    return ServeOptions(
        models=tuple(arguments.modules or config.models or (DEFAULT_NAME,)),
        host=arguments.host or DEFAULT_HOST,
        port=DEFAULT_PORT if port is None else port,
        device=_device(arguments, config),
        runtime=arguments.runtime,
        api_key=arguments.api_key or os.environ.get(KEY_VARIABLE, ""),
        origins=tuple(arguments.cors or ()),
        save_dir=_folder(arguments.save_dir),
        defaults=config.defaults,
        limits=_limits(arguments),
    )


def _device(arguments: argparse.Namespace, config: HubConfig) -> str:
    if arguments.device:
        return str(arguments.device)
    use_gpu = config.use_gpu if arguments.use_gpu is None else arguments.use_gpu
    if not use_gpu:
        return ""
    first = (arguments.gpu or config.gpu or "0").split(",")[0].strip()
    if not first.isdecimal():
        raise ConfigError(f"--gpu is {first!r}; expected the number of a GPU, such as 0")
    return f"cuda:{first}"


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    from solov2.weights.finding import why_no_folder

    if reason := why_no_folder(Path(name)):
        raise ConfigError(f"--save_dir {name}: pictures cannot be written there ({reason}); give another folder")
    return Path(name)


def _limits(arguments: argparse.Namespace) -> Limits:
    from solov2.serve.options import Limits

    given = {
        "queue": arguments.queue,
        "batch": arguments.batch,
        "batch_wait_s": _scaled(arguments.batch_wait, 1e-3),
        "deadline_s": arguments.deadline,
        "body_bytes": _whole(arguments.max_body, 1 << 20),
        "pixels": _whole(arguments.max_pixels, 1_000_000),
        "images": arguments.max_images,
    }
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    # What one request may have must find room beside others.
    return replace(
        limits,
        buffered_bytes=max(limits.buffered_bytes, limits.body_bytes),
        waiting_pixels=max(limits.waiting_pixels, limits.pixels),
    )


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _whole(value: float | None, unit: int) -> int | None:
    if value is None:
        return None
    try:
        return int(value * unit)
    except (OverflowError, ValueError):
        raise ConfigError(f"{value} is no limit; expected a number") from None
