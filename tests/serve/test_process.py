"""The service as a process: real sockets, slow and vanishing clients, the end."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from solov2.cli import main
from solov2.errors import ConfigError
from solov2.serve import process
from solov2.serve.app import create_app
from solov2.serve.connections import guarded
from solov2.serve.options import Limits, ServeOptions
from tests.serve.conftest import EXAMPLES, halves, picture_bytes

PATIENCE = 60
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and file locks are POSIX")

SERVICE = """
import logging, sys, time
from pathlib import Path
from solov2.serve import process
from solov2.serve.options import Limits, ServeOptions
from tests.serve.conftest import halves

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
folder = Path(sys.argv[1])

def wait(count):
    (folder / "running").touch()
    while (folder / "hold").exists():
        time.sleep(0.01)

process.load_models = lambda *_: halves(wait)
process.serve(ServeOptions(port=0, limits=Limits(idle_s=1.0, body_s=1.0, connections=40)))
print("ended", file=sys.stderr)
"""
"""A real process and a stand-in for the model, which works as long as there is a file ``hold``."""


class Running:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            **os.environ,
            "SOLOV2_HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[2])]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(folder)], stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stderr is not None
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line.strip())
            if line.startswith("ready"):
                self.port = int(line.rsplit(":", 1)[1])
                break
        else:
            raise AssertionError(self.lines)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def post(self, body: bytes = b"", address: str = "/v1/predict") -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", address, body or picture_bytes(), {"Content-Type": "image/png"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def wait_until_running(self) -> None:
        end = time.monotonic() + PATIENCE
        while not (self.folder / "running").exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    def close(self) -> None:
        (self.folder / "hold").unlink(missing_ok=True)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    service = Running(tmp_path_factory.mktemp("running"))
    yield service
    service.close()


@pytest.fixture
def ending(tmp_path: Path) -> Iterator[Running]:
    service = Running(tmp_path)
    yield service
    service.close()


def until_closed(connection: socket.socket) -> bytes:
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


@pytest.mark.slow
@POSIX
def test_bad_clients(running: Running) -> None:
    silent, half_head, slow_body, gone = (running.connect() for _ in range(4))
    half_head.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-")
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    slow_body.sendall(head + b"x")
    gone.sendall(head + b"x" * 500)
    gone.close()
    assert running.post()[0] == 200  # nobody is in the way of a good request
    assert until_closed(silent) == until_closed(half_head) == b""
    answer = until_closed(slow_body)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within 1 s" in answer
    garbage = running.connect()
    garbage.sendall(b"\x16\x03\x01\x02\x00" * 100 + b"\r\n\r\n")
    assert until_closed(garbage).startswith(b"HTTP/1.1 400 ")
    smuggled = running.connect()
    smuggled.sendall(
        head.replace(b"Content-Length: 1000", b"Content-Length: 4\r\nTransfer-Encoding: nonsense") + b"0000"
    )
    assert until_closed(smuggled).split(b" ")[1][:1] in (b"4", b"5")
    assert running.post()[0] == 200
    for each in (silent, half_head, slow_body, garbage, smuggled):
        each.close()


@pytest.mark.slow
@POSIX
def test_one_who_never_reads_his_answer(running: Running) -> None:
    mean = socket.socket()
    mean.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mean.connect(("127.0.0.1", running.port))
    import base64

    text = json.dumps({"images": [base64.b64encode(picture_bytes(3000, 3000)).decode()]}).encode()
    head = "POST /predict/halves HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    mean.sendall(head.format(len(text)).encode() + text)
    time.sleep(2.5)  # longer than the service's patience
    assert len(until_closed(mean)) < 40_000_000  # of 48 million
    mean.close()
    assert running.post()[0] == 200


@pytest.mark.slow
@POSIX
def test_too_many_connections(running: Running) -> None:
    crowd = [running.connect() for _ in range(60)]
    asked = running.connect()
    asked.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b" 503 " in until_closed(asked)[:20]
    for each in (*crowd, asked):
        assert until_closed(each) is not None
        each.close()
    assert running.post()[0] == 200


@pytest.mark.slow
@POSIX
def test_sigterm_finishes_what_runs(ending: Running) -> None:
    (ending.folder / "hold").touch()
    answers: list[int] = []
    asked = threading.Thread(target=lambda: answers.append(ending.post()[0]))
    asked.start()
    ending.wait_until_running()
    kept = ending.connect()  # a connection of before, with a request of after
    kept.sendall(b"GET /readyz HTTP/1.1\r\n")
    ending.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError, match="refused"):
        ending.connect()
    (ending.folder / "hold").unlink()
    asked.join(PATIENCE)
    assert answers == [200]
    assert ending.process.wait(PATIENCE) == 0
    assert ending.process.stderr is not None
    assert ending.process.stderr.read().endswith("ended\n")
    assert list(ending.folder.glob("serving_*.json")) == []
    kept.close()


@pytest.mark.slow
@POSIX
@pytest.mark.usefixtures("root_logger")
def test_paddlehubs_start_and_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path))
    words = [sys.executable, "-m", "solov2", "serving", "start", "-m", "solov2", "-p", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        line = next(line for line in service.stderr if "ready: " in line)
        port = int(line.rsplit(":", 1)[1])
        assert json.loads(process.record_path(port).read_text())["pid"] == service.pid
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("POST", "/v1/predict", (EXAMPLES / "dog.jpg").read_bytes(), {"Content-Type": "image/jpeg"})
        assert json.loads(connection.getresponse().read())["instances"][0]["category"] == "dog"
        connection.close()
        assert main(["serving", "stop", "-p", str(port)]) == 0
        assert service.wait(PATIENCE) == 0
    assert main(["serving", "stop", "--port", str(port)]) == 2
    assert f"no service that this user has started runs on port {port}" in capsys.readouterr().err


def test_a_port_in_use_and_a_bad_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path))
    monkeypatch.setattr(process, "load_models", lambda *_: pytest.fail("models are loaded after the port is had"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is occupied on 127.0.0.1"):
            process.serve(ServeOptions(port=port))
    for host in ("203.0.113.1", "no such host", "x" * 300):
        with pytest.raises(ConfigError, match="cannot listen on"):
            process.serve(ServeOptions(host=host, port=0))
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_a_record_that_was_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path))
    process.record_path(1).write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    with pytest.raises(ConfigError, match="no service"):
        process.stop(1)  # and not this process, which now has the number


def test_sigterm_before_the_loop_runs_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(halves())
    server = process._Server(process._config(app, ServeOptions()), app.state.service)
    before = signal.getsignal(signal.SIGTERM)

    def run(sockets: list[socket.socket]) -> None:
        signal.raise_signal(signal.SIGTERM)
        assert server.should_exit
        assert app.state.service.stopping

    monkeypatch.setattr(server, "run", run)
    with socket.socket() as listener:
        process._run(server, app.state.service, listener)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not app.state.service.batcher.alive


def test_the_rest_of_an_answer_that_nobody_takes_is_dropped() -> None:
    app = create_app(halves())
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()

    async def dropped(left: int) -> bool:
        transport = Mock(**{"get_write_buffer_size.return_value": left, "is_closing.return_value": True})
        transport.get_extra_info.return_value = None
        gone = asyncio.Event()
        protocol = guarded(0.01)(config, ServerState(), {})
        (transport.abort if left else transport.close).side_effect = gone.set
        protocol.connection_made(transport)
        await asyncio.wait_for(gone.wait(), PATIENCE)
        protocol.connection_lost(None)
        await asyncio.sleep(0.05)
        return bool(transport.abort.called)

    assert [asyncio.run(dropped(left)) for left in (0, 100)] == [False, True]
    app.state.service.close()


def test_limits_of_a_connection_are_the_operators() -> None:
    config = process._config(None, ServeOptions(limits=Limits(connections=3, deadline_s=2)))
    assert (config.limit_concurrency, config.timeout_graceful_shutdown) == (3, 7)
