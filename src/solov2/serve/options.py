"""What the operator of the service decides: models, address, limits. No value here comes from a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solov2.errors import ConfigError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8866
DEFAULT_NAME = "solov2"
"""The model under PaddleHub's name: the package's own, or the one that ``SOLOV2_MODEL`` names."""

LARGEST_PORT = 65535


@dataclass(frozen=True)
class Limits:
    """How much a request, and all requests together, may take.

    Attributes:
        body_bytes: of one request.
        buffered_bytes: of all requests that are being received or waiting.
        pixels: of one picture; looked at before it is decoded. Pictures of more than 8 bits may have a quarter.
        waiting_pixels: of all decoded pictures that wait or run.
        images: pictures of one request.
        answer_bytes: of PaddleHub's masks, which have 4 bytes a pixel, before base64.
        queue: pictures that are decoded, wait or run; one more is refused with 503.
        batch: pictures that go through the network together.
        batch_wait_s: seconds that a picture waits for others which are being decoded; none wait for requests that
            have not come.
        deadline_s: seconds from a request's last byte to its result; 504 after that.
        body_s: seconds in which a request's body has to arrive; 408 after that.
        idle_s: seconds in which a request's head has to arrive, and in which a client has to take something of its
            answer; the connection is closed after that.
        connections: open at one time.
    """

    body_bytes: int = 32 << 20
    buffered_bytes: int = 256 << 20
    pixels: int = 50_000_000
    waiting_pixels: int = 100_000_000
    images: int = 16
    answer_bytes: int = 1 << 30
    queue: int = 64
    batch: int = 8
    batch_wait_s: float = 0.01
    deadline_s: float = 30.0
    body_s: float = 30.0
    idle_s: float = 20.0
    connections: int = 512

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "batch_wait_s" else 1 if isinstance(value, int) else 0.001
            if not least <= value < float("inf"):
                raise ConfigError(f"{name.replace('_', '-')} is {value}; expected {least} or more")


@dataclass(frozen=True)
class ServeOptions:
    """Everything about one service.

    Attributes:
        models: names of the zoo, weights files or exported files; the first is the default.
        host: address to listen on; the default is this machine alone.
        port: to listen on; 0: any that is free.
        device: as for :func:`solov2.load`; empty: a GPU if ``CUDA_VISIBLE_DEVICES`` names one, else the CPU.
        runtime: as for :func:`solov2.load`.
        api_key: what clients have to send; empty: nothing.
        origins: web origins whose pages may use the service (CORS), or ``*``.
        save_dir: folder for pictures that PaddleHub's ``visualization`` asks for; None: such requests are refused.
        defaults: by model, named as in ``models``, values for what PaddleHub requests leave out: ``threshold``,
            ``visualization``.
        limits: of requests.
    """

    models: tuple[str, ...] = (DEFAULT_NAME,)
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    device: str = ""
    runtime: str = "auto"
    api_key: str = field(default="", repr=False)
    origins: tuple[str, ...] = ()
    save_dir: Path | None = None
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= LARGEST_PORT:
            raise ConfigError(f"port is {self.port}; expected 1..{LARGEST_PORT}, or 0 for any that is free")
        key = self.api_key
        if not (key.isascii() and key.isprintable() and key == key.strip()):
            raise ConfigError(
                "the API key has characters that no client can send in a header, such as a line's end, or a space "
                "before or after it; give one of printable ASCII"
            )
        if not self.models:
            raise ConfigError(f"no model is named; give one with -m, such as -m {DEFAULT_NAME}")
