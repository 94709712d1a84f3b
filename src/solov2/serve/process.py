"""The service as a process: its port, its record on the disk, its start and its end."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import uvicorn

from solov2.errors import ConfigError
from solov2.serve.app import create_app
from solov2.serve.connections import guarded
from solov2.serve.models import load_models
from solov2.serve.options import ServeOptions
from solov2.serve.service import Service
from solov2.weights.cache import cache_folder

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""Seconds for sending answers, after the last request's deadline, once the process is told to end."""

POLL_S = 0.1
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(options: ServeOptions) -> None:
    """Runs the service until the process is told to end (SIGTERM, SIGINT); requests that came before are answered.

    Raises:
        ConfigError: if the port cannot be had, or a setting or the device does not fit.
        WeightsError: if a model is missing or damaged.
        MissingDependencyError: if a run time is not installed.
    """
    listener = _listen(options.host, options.port)
    host, port = listener.getsockname()[:2]
    try:
        with _record(port, options):
            app = create_app(load_models(options.models, options.device, options.runtime), options)
            if options.host not in LOOPBACK and not options.api_key:
                logger.warning("everybody who reaches %s may use the service: no API key is set", host)
            address = f"[{host}]" if ":" in host else host
            logger.info("ready: http://%s:%d", address, port)
            service: Service = app.state.service
            _run(_Server(_config(app, options), service), service, listener)
    finally:
        listener.close()


def _config(app: object, options: ServeOptions) -> uvicorn.Config:
    limits = options.limits
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application, which uvicorn describes by a union of its own
        http=guarded(limits.idle_s),
        ws="none",
        lifespan="on",
        log_config=None,  # the command line has set logging up
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=int(limits.deadline_s + GRACE_S),
    )


class _Server(uvicorn.Server):
    """Refuses new requests from the moment the process is told to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hears of SIGTERM and SIGINT."""
        self._service.stopping = True
        super().handle_exit(sig, frame)


def _run(server: _Server, service: Service, listener: socket.socket) -> None:
    # uvicorn listens to signals a moment later; and it raises them again at its end: SIGTERM is no failure.
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        service.close()


def _listen(host: str, port: int) -> socket.socket:
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # where it would share a port that is in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()  # now, so that a second service finds the port taken before it loads its models
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is occupied on {host}; give another with -p") from None
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"cannot listen on {host}, port {port} ({reason}); give others with --host and -p") from None
    return listener


# ------------------------------------------------------------------------------- the record of a running service


def record_path(port: int) -> Path:
    """Where a running service says which process it is."""
    return cache_folder() / f"serving_{port}.json"


@contextlib.contextmanager
def _record(port: int, options: ServeOptions) -> Iterator[None]:
    """Keeps the record while the service runs; the lock on it tells it from one that was left behind."""
    path = record_path(port)
    text = json.dumps({"pid": os.getpid(), "module": list(options.models), "start_time": time.time()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8")
    except OSError as error:
        logger.warning("%s: cannot be written (%s): solov2 serving stop will not work", path, error.strerror)
        yield
        return
    with stream:
        if _lock(stream) is False:
            logger.warning("%s: belongs to another service: solov2 serving stop will end that one", path)
            yield
            return
        stream.truncate(0)
        stream.write(text)
        stream.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def stop(port: int, patience_s: float = 60.0) -> None:
    """Ends the service on a port of this machine; requests that came before are answered.

    Args:
        port: that it listens on.
        patience_s: seconds to wait for it.

    Raises:
        ConfigError: if no service of this user runs there, or it does not end in time.
    """
    path = record_path(port)
    try:
        if not _held(path):
            raise ConfigError(_nothing(port))
        pid = int(json.loads(path.read_text(encoding="utf-8"))["pid"])
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError):
        raise ConfigError(_nothing(port)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: does not say which process to end ({error}); end it yourself") from None
    end = time.monotonic() + patience_s
    while _held(path):
        if time.monotonic() > end:
            raise ConfigError(f"process {pid} was told to end, and runs on after {patience_s:g} s; end it yourself")
        time.sleep(POLL_S)


def _held(path: Path) -> bool:
    """Whether a running service holds a record, and not one that was killed; taken for true where nobody can tell."""
    try:
        with path.open("r+", encoding="utf-8") as stream:
            return _lock(stream) is not True
    except FileNotFoundError:
        return False


def _nothing(port: int) -> str:
    return f"no service that this user has started runs on port {port}; give its port with -p"


def _lock(stream: IO[str]) -> bool | None:
    """Locks a file as long as it is open: whether that could be done; None where files cannot be locked."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
