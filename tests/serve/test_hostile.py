"""Requests of people who mean harm, or whose programs do: each has its answer, and the next good one gets its own."""

from __future__ import annotations

import base64
import gc
import io
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from solov2.serve.bodies import form_file
from solov2.serve.pictures import decode_picture, open_picture
from tests.serve.conftest import Client, halves, picture_bytes

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PATIENCE = 20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, data: bytes = b"", depth: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return PNG_HEAD + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(image: Image.Image, file_format: str, **values: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **values)
    return stream.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue", "white")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
JPEG = encoded(Image.fromarray(NOISE), "JPEG")
BOMB = zlib.compress(bytes(40_000_000), 9)

PICTURES: dict[str, tuple[bytes, int, str]] = {
    "text": (b"hello", 415, "not a picture of a known format"),
    "html": (b"<html><script>alert(1)</script>", 415, "not a picture"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not a picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a picture"),
    "zeros": (bytes(10_000), 415, "not a picture"),
    "png head alone": (PNG_HEAD, 415, "not a picture"),
    "jpeg of 2,000 scans": (JPEG[:-2] + b"\xff\xda\0\0" * 2000, 422, "2001 scans; at most 100"),
    "jpeg of 30,000 comments": (JPEG[:2] + b"\xff\xfe\0\2" * 30_000 + JPEG[2:], 422, "more than 20000 parts"),
    "jpeg with a long nothing": (JPEG[:2] + b"\xff\xe0\0\2" + bytes(30_000) + JPEG[4:], 422, "more than 20000 parts"),
    "jpeg with a long fill": (JPEG[:2] + b"\xff" * 30_000 + JPEG[2:], 422, "more than 20000 parts"),
    "png of 30,000 chunks": (png(64, 64, chunk(b"abCd", b"") * 30_000), 422, "more than 20000 parts"),
    "jpeg of 9,000 comments": (JPEG[:2] + b"\xff\xfe\0\2" * 9000 + JPEG[2:], 200, ""),
    "16-bit picture of 15 million pixels": (png(5000, 3000, depth=16), 413, "at most 12500000 pixels"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], 422, "damaged"),
    "jpeg head alone": (JPEG[:3], 415, "not a picture"),
    "truncated png": (encoded(Image.fromarray(NOISE), "PNG")[:3000], 422, "damaged"),
    "100,000 x 100,000 png": (png(100_000, 100_000), 413, "scale it down"),
    "100,000 x 100,000 bmp": (bmp(100_000, 100_000), 413, "scale it down"),
    "10,000 x 10,000 png": (png(10_000, 10_000, data=BOMB), 413, "10000x10000; at most 50000000 pixels"),
    "png with too much in it": (png(8, 8, data=BOMB), 200, ""),
    "png with no data": (png(8, 8), 422, "damaged"),
    "png without pixels": (png(0, 0), 415, "not a picture"),
    "png of a huge text": (
        png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)), data=zlib.compress(bytes(72))),
        422,
        "damaged",
    ),
    "gif of a huge screen": (b"GIF89a" + struct.pack("<HH", 65535, 65535) + animated()[10:], 413, "scale it down"),
    "1 x 1": (picture_bytes(1, 1), 200, ""),
    "animated gif": (animated(), 200, ""),
    "cmyk jpeg": (picture_bytes(6, 4, "JPEG", "CMYK"), 200, ""),
    "palette png": (picture_bytes(6, 4, "PNG", "P"), 200, ""),
    "bitmap tiff": (picture_bytes(6, 4, "TIFF", "1"), 200, ""),
    "float tiff": (picture_bytes(6, 4, "TIFF", "F"), 200, ""),
    "webp": (picture_bytes(6, 4, "WEBP", "RGBA"), 200, ""),
    "1 x 30,000": (picture_bytes(1, 30_000), 200, ""),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Client]:
    from solov2.serve.app import create_app

    with Client(create_app(halves())) as client:
        yield client


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(service: Client, name: str) -> None:
    data, status, said = PICTURES[name]
    answer = service.post("/v1/predict", content=data, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == status
    text = base64.b64encode(data).decode()
    envelope = service.post("/predict/halves", json={"images": [text]})
    assert envelope.status_code == 200
    if status == 200:
        assert len(answer.json()["instances"]) == 1
        assert envelope.json()["status"] == "000"
    else:
        assert said in answer.json()["error"]
        assert (envelope.json()["status"], envelope.json()["results"]) == ("101", "")
        assert said in envelope.json()["msg"]
    still_well(service)


def still_well(service: Client) -> None:
    answer = service.post("/v1/predict", content=picture_bytes(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert len(answer.json()["instances"]) == 1
    inner = service.service
    assert (inner.slots.used, inner.pixels.used, inner.bodies.used, inner.batcher.waiting) == (0, 0, 0, 0)


def test_the_real_model_takes_one_pixel_and_a_line(client: Client) -> None:
    for width, height in ((1, 1), (1, 3000), (3000, 1)):
        answer = client.post(
            "/v1/predict?threshold=0", content=picture_bytes(width, height), headers={"Content-Type": "image/png"}
        )
        assert answer.json()["image"] == {"width": width, "height": height}


@pytest.mark.parametrize("announce", [True, False], ids=["announced", "unannounced"])
def test_a_body_beyond_the_limit(make_client: Callable[..., Client], announce: bool) -> None:
    service = make_client(halves(), body_bytes=1000)

    async def parts() -> Any:
        for _ in range(20):
            yield bytes(100)

    for address in ("/v1/predict", "/predict/halves"):
        content: Any = bytes(2000) if announce else parts()
        answer = service.post(address, content=content, headers={"Content-Type": "image/jpeg"})
        said = answer.json().get("error") or answer.json()["msg"]
        assert "more than 1000 bytes" in said
        assert answer.status_code == (413 if address.startswith("/v1") else 200)
    still_well(service)


@pytest.mark.parametrize("length", ["-1", "a", "1e9", "9" * 400, "²"])
def test_lengths_that_are_none(service: Client, length: str) -> None:
    headers = {"Content-Type": "image/jpeg", "Content-Length": length.encode("latin-1")}
    answer = service.post("/v1/predict", content=b"x", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code in (400, 413)
    still_well(service)


def test_a_slow_body(make_client: Callable[..., Client]) -> None:
    service = make_client(halves(), body_s=0.05)
    stop = threading.Event()

    async def parts() -> Any:
        import asyncio

        yield b"x"
        while not stop.is_set():
            await asyncio.sleep(0.01)

    answer = service.post("/v1/predict", content=parts(), headers={"Content-Type": "image/jpeg"})
    stop.set()
    assert (answer.status_code, "within 0.05 s" in answer.json()["error"]) == (408, True)
    still_well(service)


def test_a_slow_body_beyond_the_limit_is_told_so(make_client: Callable[..., Client]) -> None:
    service = make_client(halves(), body_s=0.05, body_bytes=2000)
    stop = threading.Event()

    async def parts() -> Any:
        import asyncio

        yield bytes(2001)
        while not stop.is_set():
            await asyncio.sleep(0.01)

    answer = service.post("/v1/predict", content=parts(), headers={"Content-Type": "image/jpeg"})
    stop.set()
    assert (answer.status_code, "more than 2000 bytes" in answer.json()["error"]) == (413, True)
    assert service.service.bodies.used == 0
    still_well(service)


def test_more_pictures_than_ever_fit_are_not_told_to_come_back(make_client: Callable[..., Client]) -> None:
    service = make_client(halves(), queue=2)
    image = base64.b64encode(picture_bytes()).decode()
    answer = service.post("/predict/halves", json={"images": [image] * 3})
    assert (answer.json()["status"], "Retry-After" in answer.headers) == ("101", False)
    assert "3 pictures are more than the queue's 2" in answer.json()["msg"]
    assert service.post("/predict/halves", json={"images": [image] * 2}).json()["status"] == "000"


def test_the_gone_leave_nothing_before_the_threads(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def slow(data: bytes, most: int) -> Image.Image:
        begun.release()
        assert go_on.wait(PATIENCE)
        return open_picture(data, most)

    monkeypatch.setattr("solov2.serve.service.open_picture", slow)
    service = make_client(halves())
    good = {"content": picture_bytes(), "headers": {"Content-Type": "image/png"}}
    helpers = service.service._helpers
    running = [service.start("POST", "/v1/predict", **good) for _ in range(helpers._max_workers)]
    for _ in running:
        assert begun.acquire(timeout=PATIENCE)
    gone = [service.start("POST", "/v1/predict", **good) for _ in range(3)]
    while service.service.slots.used < len(running) + len(gone):
        threading.Event().wait(0.001)
    for request in gone:
        request.cancel()
    while service.service.slots.used > len(running):
        threading.Event().wait(0.001)
    assert helpers._work_queue.qsize() == 0
    go_on.set()
    assert [request.result(PATIENCE).status_code for request in running] == [200] * len(running)
    still_well(service)


@pytest.mark.parametrize("trouble", ["a bad one", "the deadline"])
def test_pictures_of_what_went_wrong_are_forgotten(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    held: list[weakref.ref[Any]] = []

    def seen(image: Image.Image) -> Any:
        picture = decode_picture(image)
        held.append(weakref.ref(picture))
        return picture

    stuck = Stuck()

    def work(count: int) -> None:
        if trouble == "the deadline":
            stuck(count)

    monkeypatch.setattr("solov2.serve.service.decode_picture", seen)
    service = make_client(halves(work), deadline_s=0.5 if trouble == "the deadline" else PATIENCE)
    images = [base64.b64encode(picture_bytes()).decode(), base64.b64encode(b"bad").decode()]
    gc.disable()
    try:
        body = service.post("/predict/halves", json={"images": images[: 2 if trouble == "a bad one" else 1]}).json()
        stuck.go_on.set()
        service.get("/healthz")
        end = time.monotonic() + 5
        while held[0]() is not None and time.monotonic() < end:
            time.sleep(0.001)
        assert (body["status"], len(held), held[0]() is None) == ("101", 1, True)
    finally:
        gc.enable()


def test_forms_are_taken_apart_beside_the_loop_and_not_on_the_disk(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def seen(*values: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return form_file(*values)

    monkeypatch.setattr("solov2.serve.v1.form_file", seen)
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", lambda _: pytest.fail("on the disk"))
    large = picture_bytes() + bytes(3 << 20)
    service = make_client(halves())
    answer = service.post("/v1/predict", files={"image": ("a.png", large, "image/png")})
    assert (answer.status_code, len(threads)) == (200, 1)
    assert threads[0].startswith("solov2-pictures")


def test_too_many_bytes_at_once(make_client: Callable[..., Client]) -> None:
    service = make_client(halves(), buffered_bytes=2000)
    answer = service.post("/v1/predict", content=bytes(3000), headers={"Content-Type": "image/jpeg"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    still_well(service)


def test_too_many_pixels_at_once(make_client: Callable[..., Client]) -> None:
    service = make_client(halves(), waiting_pixels=40)
    images = [base64.b64encode(picture_bytes(6, 4)).decode()]
    assert service.post("/predict/halves", json={"images": images}).json()["status"] == "000"
    body = service.post("/predict/halves", json={"images": images * 2}).json()
    assert (body["status"], "more than 40 pixels together" in body["msg"]) == ("101", True)
    still_well(service)


class Stuck:
    """A model that works until it is told to go on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, count: int) -> None:
        self.entered.release()
        assert self.go_on.wait(PATIENCE)


def test_a_full_queue(make_client: Callable[..., Client]) -> None:
    stuck = Stuck()
    service = make_client(halves(stuck), queue=3)
    good = {"content": picture_bytes(), "headers": {"Content-Type": "image/png"}}
    running = [service.start("POST", "/v1/predict", **good)]
    assert stuck.entered.acquire(timeout=PATIENCE)
    running += [service.start("POST", "/v1/predict", **good) for _ in range(2)]
    while service.service.slots.used < 3:
        threading.Event().wait(0.001)
    refused = service.post("/v1/predict", **good)
    assert (refused.status_code, int(refused.headers["Retry-After"]) >= 1) == (503, True)
    assert "3 pictures are waiting already" in refused.json()["error"]
    envelope = service.post("/predict/halves", json={"images": [base64.b64encode(picture_bytes()).decode()]})
    assert (envelope.status_code, envelope.json()["status"]) == (200, "101")
    assert "Retry-After" in envelope.headers
    assert service.get("/healthz").status_code == 200  # others are answered meanwhile
    stuck.go_on.set()
    assert [future.result(PATIENCE).status_code for future in running] == [200] * 3
    still_well(service)


def test_a_queue_that_would_be_late(make_client: Callable[..., Client]) -> None:
    stuck = Stuck()
    service = make_client(halves(stuck), deadline_s=10)
    good = {"content": picture_bytes(), "headers": {"Content-Type": "image/png"}}
    running = service.start("POST", "/v1/predict", **good)
    assert stuck.entered.acquire(timeout=PATIENCE)
    service.service.batcher.picture_s = 9.0  # what the last ones took
    refused = service.post("/v1/predict", **good)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "9")
    assert "make this one late" in refused.json()["error"]
    stuck.go_on.set()
    assert running.result(PATIENCE).status_code == 200
    still_well(service)  # with nobody before it a request is taken, however long the last one took


def test_the_deadline(make_client: Callable[..., Client]) -> None:
    stuck = Stuck()
    service = make_client(halves(stuck), deadline_s=0.1)
    answer = service.post("/v1/predict", content=picture_bytes(), headers={"Content-Type": "image/png"})
    assert (answer.status_code, "within 0.1 s" in answer.json()["error"]) == (504, True)
    stuck.go_on.set()


def test_a_client_that_goes_away_leaves_the_queue(make_client: Callable[..., Client]) -> None:
    stuck = Stuck()
    service = make_client(halves(stuck))
    good = {"content": picture_bytes(), "headers": {"Content-Type": "image/png"}}
    first = service.start("POST", "/v1/predict", **good)
    assert stuck.entered.acquire(timeout=PATIENCE)
    second = service.start("POST", "/v1/predict", **good)
    while service.service.batcher.waiting < 1:
        threading.Event().wait(0.001)
    second.cancel()
    while service.service.slots.used > 1:
        threading.Event().wait(0.001)
    stuck.go_on.set()
    assert first.result(PATIENCE).status_code == 200
    still_well(service)


def test_a_failure_of_the_model(make_client: Callable[..., Client]) -> None:
    failures: list[BaseException] = [
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: out of luck\nat line 3"),
        RuntimeError("once more"),
    ]

    def fail(count: int) -> None:
        if failures:
            raise failures.pop()

    service = make_client(halves(fail))
    answer = service.post("/v1/predict", content=picture_bytes(), headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()) == (500, {"error": "this should not have happened (RuntimeError)"})
    envelope = service.post("/predict/halves", json={"images": [base64.b64encode(picture_bytes()).decode()]})
    assert (envelope.status_code, envelope.json()["status"]) == (200, "101")
    assert envelope.json()["msg"] == "this should not have happened (RuntimeError)"
    answer = service.post("/v1/predict", content=picture_bytes(), headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()) == (503, {"error": "the memory is used up; try again later"})
    still_well(service)


def test_after_the_end_requests_are_refused(make_client: Callable[..., Client]) -> None:
    service = make_client(halves())
    service.service.stopping = True
    answer = service.post("/v1/predict", content=picture_bytes(), headers={"Content-Type": "image/png"})
    assert (answer.status_code, "being stopped" in answer.json()["error"]) == (503, True)
    assert "Retry-After" in answer.headers
    assert (service.get("/readyz").status_code, service.get("/healthz").status_code) == (503, 200)


TRAVERSAL = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "..\\options.py")


@pytest.mark.parametrize("path", TRAVERSAL)
def test_paths_in_every_place(service: Client, path: str) -> None:
    for address in (f"/page/{path}", f"/page/examples/{path}", f"/{path}", f"/v1/{path}", f"/docs/{path}"):
        answer = service.get(address)
        assert answer.status_code in (404, 405)
        assert "root:" not in answer.text
    assert service.post(f"/predict/{path}", json={}).json().get("status", "111") == "111"
    answer = service.post("/v1/predict", params={"model": path}, content=b"x")
    assert answer.status_code == 404
    files = {"image": (path, picture_bytes(), "image/png")}
    assert service.post("/v1/predict", files=files).status_code == 200
    still_well(service)
