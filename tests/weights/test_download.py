import dataclasses
import errno
import hashlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from solov2.errors import WeightsError
from solov2.weights import cache, download, zoo
from solov2.weights.cache import download_place, record_place, remembered
from solov2.weights.download import tell_licence
from solov2.weights.trial import on_trial, passed
from tests.weights.local_server import LocalServer, local_server, send, send_part, send_status, send_unmeasured

BODY = bytes(range(256)) * 4096  # 1 MiB: several chunks
PATH = "/models/x.pdparams"

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "_warned", set())
    return tmp_path / "home"


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with local_server() as running:
        yield running


def fetch(url: str, **options: bool) -> Path:
    """Fetched and used, so that it is remembered."""
    place = download.fetch(url, **options)
    passed(place)
    return place


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def refused(url: str) -> str:
    """The message, which is one line and names the address."""
    with pytest.raises(WeightsError) as caught:
        fetch(url)
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    assert caught.value.__cause__ is None
    return message


# ------------------------------------------------------------------------------------------ it works


def test_a_file_is_fetched_once(server: LocalServer, home: Path) -> None:
    url = server.set(PATH, [send(BODY)])
    place = fetch(url)
    assert place == download_place(url)
    assert place.is_relative_to(home)
    assert place.read_bytes() == BODY
    assert json.loads(record_place(place).read_text()) == {"url": url, "sha256": sha256(BODY), "bytes": len(BODY)}
    assert files_in(home) == [place, record_place(place)]
    assert fetch(url) == place
    assert server.asked == [PATH]


def test_a_file_saved_by_hand_needs_no_network(home: Path) -> None:
    url = "https://nowhere.invalid/x.pth"
    place = download_place(url)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert fetch(url) == place
    assert json.loads(record_place(place).read_text())["sha256"] == sha256(b"by hand")


def test_paddledetections_short_form(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set("/models/pretrained/x.pdparams", [send(BODY)])
    monkeypatch.setattr(cache, "PADDLE_HOST", server.address + "/")
    assert fetch("ppdet://models/pretrained/x.pdparams").read_bytes() == BODY


def test_a_redirection_is_followed(server: LocalServer) -> None:
    server.set("/there", [send(BODY)])
    assert fetch(server.set("/here", [send_status(302, Location="/there")])).read_bytes() == BODY


def test_a_length_may_be_unknown(server: LocalServer) -> None:
    assert fetch(server.set(PATH, [send_unmeasured(BODY)])).read_bytes() == BODY


def test_the_bytes_are_asked_for_as_they_are(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = requests.get

    def get(url: str, **options: Any) -> requests.Response:
        asked.append(options)
        return real(url, **options)

    monkeypatch.setattr(requests, "get", get)
    fetch(server.set(PATH, [send(BODY)]))
    assert asked[0]["headers"] == {"Accept-Encoding": "identity"}
    assert asked[0]["timeout"] == download.TIMEOUT


def test_the_bar(server: LocalServer, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    fetch(server.set("/a.pth", [send(BODY)]))
    assert capsys.readouterr() == ("", "")  # no terminal, no bar
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(server.set("/b.pth", [send(BODY)]), progress=False)
    assert capsys.readouterr() == ("", "")
    fetch(server.set("/c.pth", [send(BODY)]))
    out, err = capsys.readouterr()
    assert out == ""
    assert "c.pth" in err
    assert "1.0/1.0 MB" in err


def test_the_bars_numbers(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []

    class Bar(download._Bar):
        def update(self, amount: int) -> None:
            told.append(("update", amount))

        def reset(self) -> None:
            told.append(("reset", self.total))

        def close(self) -> None:
            told.append(("close", self.total))

    monkeypatch.setattr(download, "_Bar", Bar)
    fetch(server.set(PATH, [send(BODY)]))
    chunks = len(BODY) // download.CHUNK
    assert told[:chunks] == [("update", download.CHUNK)] * chunks
    assert told[chunks : chunks + 3] == [("reset", len(BODY)), ("update", len(BODY)), ("close", len(BODY))]


# ------------------------------------------------------------------------------------ whole or not at all


@pytest.mark.parametrize("count", [1, 300_000, len(BODY) - 1])
def test_a_cut_connection_is_tried_again(
    server: LocalServer, home: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.set(PATH, [send_part(BODY, count), send(BODY)])
    with caplog.at_level(logging.WARNING):
        place = fetch(url)
    assert place.read_bytes() == BODY
    assert server.asked == [PATH, PATH]
    assert files_in(home) == [place, record_place(place)]
    (message,) = caplog.messages
    assert message == f"{url}: the connection was cut; beginning anew"


def test_a_connection_that_is_always_cut(server: LocalServer, home: Path) -> None:
    url = server.set(PATH, [send_part(BODY, 1000)])
    message = refused(url)
    assert "the connection was cut, 3 times; try again, or download it by hand and save it as" in message
    assert str(download_place(url)) in message
    assert len(server.asked) == download.ATTEMPTS
    assert files_in(home) == []
    server.set(PATH, [send(BODY)])
    assert fetch(url).read_bytes() == BODY  # nothing of before is in the way


def test_the_stated_length_is_compared(server: LocalServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the HTTP library does about it."""
    real = download._Received.write
    monkeypatch.setattr(download._Received, "write", lambda self, chunk: real(self, chunk[:-1]))
    assert f"was cut after {len(BODY) - 4} of {len(BODY)} bytes" in refused(server.set(PATH, [send(BODY)]))
    assert files_in(home) == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (send_status(404), "the server answered 404 Not Found"),
        (send_status(403), "the server answered 403 Forbidden"),
        (send_status(503), "the server answered 503 Service Unavailable"),
        (send_status(302, Location=PATH), "the server sends from one address to the next"),
        (send_status(302, Location="file:///etc/passwd"), "not a valid address"),
        (send_status(302, Location="http://[::1"), "the server's answer makes no sense"),
    ],
)
def test_answers_that_are_no_file(server: LocalServer, home: Path, answer: Any, words: str) -> None:
    url = server.set(PATH, [answer])
    message = refused(url)
    assert f"{words}; check address and network, or download it by hand and save it as " in message
    assert str(download_place(url)) in message
    assert files_in(home) == []


def test_a_web_page_is_no_file(server: LocalServer, home: Path) -> None:
    url = server.set(PATH, [send(b"<html>Log in</html>", kind="text/html; charset=utf-8")])
    assert "the server sent a web page, not weights" in refused(url)
    assert files_in(home) == []


@pytest.mark.parametrize("answer", [send(b""), send_unmeasured(b"")])
def test_an_empty_file(server: LocalServer, home: Path, answer: Any) -> None:
    assert "the server sent an empty file" in refused(server.set(PATH, [answer]))
    assert files_in(home) == []


def test_a_length_that_is_no_number(server: LocalServer, home: Path) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "many")
        handler.end_headers()
        handler.wfile.write(BODY)

    assert "the server's answer makes no sense" in refused(server.set(PATH, [answer]))
    assert files_in(home) == []


def test_nobody_listens(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/x.pth"
    message = refused(url)
    assert "no connection to the server; check address and network" in message
    assert message.endswith(f"save it as {download_place(url)}, or give the file's path with -m or -w")
    assert files_in(home) == []


@pytest.mark.parametrize("count", [0, 1000])
def test_a_silent_server(server: LocalServer, home: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    release = threading.Event()

    def answer(handler: Any) -> None:
        if count:
            send_part(BODY, count)(handler)
            handler.wfile.flush()
        release.wait(20)

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    try:
        message = refused(server.set(PATH, [answer]))
    finally:
        release.set()
    assert ("the connection was cut" if count else "no answer within 0.1 s") in message
    assert files_in(home) == []


# ------------------------------------------------------------------------------------------- the disk


def test_a_full_disk(server: LocalServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: object, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    url = server.set(PATH, [send(BODY)])
    with monkeypatch.context() as patch:
        patch.setattr(download._Received, "write", write)
        message = refused(url)
    assert f"cannot be saved as {download_place(url)} (No space left on device); make room" in message
    assert "SOLOV2_HOME" in message
    assert server.asked == [PATH]  # another attempt would find no more room
    assert files_in(home) == []
    assert fetch(url).read_bytes() == BODY


def test_a_folder_that_cannot_be_made(
    server: LocalServer, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "file"))
    url = server.set(PATH, [send(BODY)])
    assert f"cannot be saved as {tmp_path / 'file'}" in refused(url)
    assert (tmp_path / "file").read_text() == "in the way"
    assert server.asked == []


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(server: LocalServer, home: Path) -> None:
    home.mkdir(mode=0o500)
    assert "(Permission denied)" in refused(server.set(PATH, [send(BODY)]))
    assert files_in(home) == []


def test_an_interruption_leaves_nothing(server: LocalServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: object, chunk: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download._Received, "write", write)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.set(PATH, [send(BODY)]))
    assert files_in(home) == []


def test_what_a_killed_process_left_is_removed(server: LocalServer, home: Path) -> None:
    url = server.set(PATH, [send(BODY)])
    place = download_place(url)
    place.parent.mkdir(parents=True)
    old, young = place.parent / f".{place.name}.old", place.parent / f".{place.name}.young"
    old.write_bytes(b"x")
    young.write_bytes(b"x")  # perhaps another process is at work
    past = time.time() - 2 * download.LEFTOVER_AGE
    os.utime(old, (past, past))
    fetch(url)
    assert files_in(home) == sorted([place, record_place(place), young])


# ------------------------------------------------------------------------------------ the same bytes


def test_a_changed_file_is_refused(server: LocalServer) -> None:
    url = server.set(PATH, [send(BODY)])
    place = fetch(url)
    place.write_bytes(b"tampered with")
    with pytest.raises(WeightsError) as caught:
        fetch(url)
    message = str(caught.value)
    assert str(place) in message
    assert sha256(BODY) in message
    assert sha256(b"tampered with") in message
    place.unlink()  # as the message says
    assert fetch(url).read_bytes() == BODY


def test_other_bytes_from_the_server_are_refused(server: LocalServer, home: Path) -> None:
    url = server.set(PATH, [send(BODY), send(BODY[::-1])])
    place = fetch(url)
    place.unlink()
    message = refused(url)
    assert sha256(BODY) in message
    assert sha256(BODY[::-1]) in message
    assert f"To trust the new one, delete {record_place(place)}" in message
    assert files_in(home) == [record_place(place)]
    record_place(place).unlink()
    assert fetch(url).read_bytes() == BODY[::-1]


def test_a_damaged_record_is_told_before_the_transfer(server: LocalServer) -> None:
    url = server.set(PATH, [send(BODY)])
    place = fetch(url)
    place.unlink()
    record_place(place).write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        fetch(url)
    assert server.asked == [PATH]


def test_two_at_once(server: LocalServer, home: Path) -> None:
    together = threading.Barrier(2)

    def answer(handler: Any) -> None:
        together.wait(20)  # both have found no file
        send(BODY)(handler)

    url = server.set(PATH, [answer])
    results: list[Path | Exception] = []

    def work() -> None:
        try:
            results.append(fetch(url))
        except Exception as error:  # told below
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    place = download_place(url)
    assert results == [place, place]
    assert place.read_bytes() == BODY
    assert files_in(home) == [place, record_place(place)]


@pytest.mark.parametrize("used", [True, False])
def test_the_slower_of_two_gets_other_bytes(server: LocalServer, home: Path, used: bool) -> None:
    """The server's file changes while two download it: the first whole one counts."""
    url = f"{server.address}{PATH}"
    place = download_place(url)

    def answer(handler: Any) -> None:
        if len(server.asked) == 1:
            if used:
                fetch(url)  # another process, from its start to its end
            else:
                download.fetch(url)
            send(BODY[::-1])(handler)
        else:
            send(BODY)(handler)

    server.set(PATH, [answer])
    assert "the server sends another file than at first" in refused(url)
    assert place.read_bytes() == BODY
    assert files_in(home) == [place, *([record_place(place)] if used else [])]


# ------------------------------------------------------------------------------------------- on trial


def fails(place: Path) -> str:
    """The message about a file that cannot be read."""
    with pytest.raises(WeightsError) as caught, on_trial(place):
        raise WeightsError(f"{place}: damaged; get it again")
    return str(caught.value)


def test_only_what_has_served_is_remembered(server: LocalServer) -> None:
    place = download.fetch(server.set(PATH, [send(BODY)]))
    with on_trial(place):
        assert remembered(place) is None
    passed(place)
    assert remembered(place) == sha256(BODY)
    assert fails(place) == f"{place}: damaged; get it again"  # it has served: something else is wrong
    assert place.is_file()


def test_a_download_that_is_no_use_is_dropped(server: LocalServer, home: Path) -> None:
    url = server.set(PATH, [send(b"<html>"), send(BODY)])
    place = download.fetch(url)
    assert fails(place) == (
        f"{url}: what the server sent cannot be used: damaged; get it again; it is not kept; see whether the address "
        f"is right, or download it by hand and save it as {place}"
    )
    assert files_in(home) == []
    assert fetch(url).read_bytes() == BODY


def test_a_file_saved_by_hand_that_is_no_use_stays(server: LocalServer) -> None:
    url = f"{server.address}{PATH}"
    place = download_place(url)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"<html>")
    assert download.fetch(url) == place
    assert fails(place) == f"{place}: damaged; get it again; save the right file of {url} here"
    assert place.read_bytes() == b"<html>"
    assert not record_place(place).exists()
    place.write_bytes(b"the right one")
    assert fetch(url) == place
    assert remembered(place) == sha256(b"the right one")


def test_an_interruption_decides_nothing(server: LocalServer) -> None:
    place = download.fetch(server.set(PATH, [send(BODY)]))
    with pytest.raises(KeyboardInterrupt), on_trial(place):
        raise KeyboardInterrupt
    assert place.is_file()
    assert remembered(place) is None
    passed(place)
    assert remembered(place) == sha256(BODY)


# --------------------------------------------------------------------------------------- the licence


def put_into_zoo(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setattr(zoo, "ZOO", (dataclasses.replace(zoo.zoo_entry(name), url=url),))


def test_the_licence_is_shown_first_and_once(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.set("/SOLOv2_R50_1x.pth", [send(BODY)])
    put_into_zoo(monkeypatch, "solov2_r50_fpn_8gpu_1x", url)
    with caplog.at_level(logging.INFO):
        fetch(url)
        fetch(url)
    assert caplog.messages == [
        "SOLOv2_R50_1x.pth of authors (WXinlong/SOLO): the licence of these weights is "
        "non-commercial (academic use under BSD-2-Clause; commercial use by request)",
        f"downloading {url}",
    ]
    caplog.clear()
    monkeypatch.setattr(download, "_warned", set())  # another process, which finds the file in the cache
    fetch(url)
    assert "non-commercial" in caplog.text
    assert server.asked == ["/SOLOv2_R50_1x.pth"]


def test_a_free_licence_is_no_warning(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.set(PATH, [send(BODY)])
    put_into_zoo(monkeypatch, "solov2_r50_fpn_1x_coco", url)
    fetch(url)
    tell_licence("https://elsewhere.example/x.pth")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
