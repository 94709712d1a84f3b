"""A web server on this machine that answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Writes one answer."""


def send(body: bytes, *, kind: str = "application/octet-stream") -> Answer:
    """The whole body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def send_part(body: bytes, count: int) -> Answer:
    """States the whole length, sends the first bytes and closes the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:count])

    return answer


def send_unmeasured(body: bytes) -> Answer:
    """The whole body without its length: it ends where the connection ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def send_status(code: int, **headers: str) -> Answer:
    """No body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


class LocalServer:
    """What to answer at which path, and what was asked for.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        asked: the paths in the order of the requests.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[str] = []
        self._answers: dict[str, list[Answer]] = {}

    def set(self, path: str, answers: Sequence[Answer]) -> str:
        """Answers in turn, the last one for ever; returns the address of the path."""
        self._answers[path.partition("?")[0]] = list(answers)
        return self.address + path

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        self.asked.append(handler.path)
        answers = self._answers.get(handler.path.partition("?")[0], [send_status(404)])
        (answers.pop(0) if len(answers) > 1 else answers[0])(handler)


@contextmanager
def local_server() -> Iterator[LocalServer]:
    """Serves until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            server.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = LocalServer(f"http://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
