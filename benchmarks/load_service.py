"""How much the service does at once: clients on this machine ask for one picture again and again.

    python benchmarks/load_service.py --seconds 30 --clients 1 8 32 64
    python benchmarks/load_service.py --seconds 5 --attack

A service is started on a free port, with its default limits, and ended afterwards. Clients are threads of this
process that keep their connections; they share the machine's cores with the service. A refused client waits for a
moment, not as long as it is told, so that pressure stays. Prints a table for docs/serving.md.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PAUSE_S = 0.05
"""Between a refusal and the next request."""

ATTACKERS = 8
QUEUE_REQUESTS = 5000
WARM_UP = 5


@dataclass
class Tally:
    """What one client saw: seconds of each good answer, and how often which status came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Runs the load and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--model", default="solov2")
    parser.add_argument("--attack", action="store_true", help="bad requests instead: what is answered, and the memory")
    parser.add_argument("--picture", type=Path, default=ROOT / "examples" / "dog.jpg")
    arguments = parser.parse_args()
    print(f"the queue itself: {queue_cost() * 1e3:.3f} ms a picture (median of {QUEUE_REQUESTS}, one at a time)")
    body = arguments.picture.read_bytes()
    with tempfile.TemporaryFile("w+") as log:
        words = [sys.executable, "-m", "solov2", "serve", "-p", "0", "-m", arguments.model]
        service = subprocess.Popen(words, stderr=log)
        try:
            port = wait_for(service, log)
            for _ in range(WARM_UP):
                ask(http.client.HTTPConnection("127.0.0.1", port), body)
            if arguments.attack:
                attack(service.pid, port, body, arguments.seconds)
            else:
                measure(service.pid, port, body, arguments)
        finally:
            service.terminate()
            service.wait()


def measure(pid: int, port: int, body: bytes, arguments: argparse.Namespace) -> None:
    """Prints a row for each number of clients."""
    print("| clients | requests/s | against one | p50 ms | p95 ms | p99 ms | 200 | 503 | others | memory MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    alone = 0.0
    print(f"| before | | | | | | | | | {memory_mb(pid):.0f} |", flush=True)
    for clients in arguments.clients:
        start = time.monotonic()
        tally = load(port, body, clients, arguments.seconds)
        rate = len(tally.seconds) / (time.monotonic() - start)
        alone = alone or rate
        p50, p95, p99 = (1e3 * float(value) for value in np.percentile(tally.seconds or [0.0], [50, 95, 99]))
        others = {status: count for status, count in tally.statuses.items() if status not in ("200", "503")}
        print(
            f"| {clients} | {rate:.1f} | {rate / alone:.2f} | {p50:.0f} | {p95:.0f} | {p99:.0f} "
            f"| {tally.statuses['200']} | {tally.statuses['503']} | {others or 'none'} | {memory_mb(pid):.0f} |",
            flush=True,
        )


def attack(pid: int, port: int, good: bytes, seconds: float) -> None:
    """Prints a row for each kind of bad request, sent by eight clients; a good request follows each row."""
    print("| request | answers | memory MB | most memory MB | a good one after it |")
    print("|---|---|---|---|---|")
    print(f"| before | | {memory_mb(pid):.0f} | {memory_mb(pid, 'VmHWM'):.0f} | |", flush=True)
    for name, (address, media, body) in bad_requests(good).items():
        statuses: Counter[str] = Counter()

        def send(body: bytes = body, address: str = address, media: str = media) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                try:
                    connection.request("POST", address, body, {"Content-Type": media})
                    answer = connection.getresponse()
                    text = answer.read()
                    envelope = f" ({json.loads(text)['status']})" if address.startswith("/predict") else ""
                    statuses[f"{answer.status}{envelope}"] += 1  # noqa: B023  # the threads end with the row
                except (OSError, http.client.HTTPException) as error:
                    statuses[type(error).__name__] += 1  # noqa: B023
                connection.close()

        together(send, ATTACKERS)
        after = ask(http.client.HTTPConnection("127.0.0.1", port), good)
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        print(f"| {name} | {counts} | {memory_mb(pid):.0f} | {memory_mb(pid, 'VmHWM'):.0f} | {after} |", flush=True)


def bad_requests(good: bytes) -> dict[str, tuple[str, str, bytes]]:
    """Address, content type and body of each kind."""
    hub, v1, image, words = "/predict/solov2", "/v1/predict", "image/png", "application/json"
    bomb = zlib.compress(bytes(200_000_000), 9)
    text = base64.b64encode(good).decode()
    return {
        "no picture": (v1, image, b"hello"),
        "truncated JPEG": (v1, image, good[: len(good) // 2]),
        "PNG of 100,000 x 100,000": (v1, image, png(100_000, bomb)),
        "PNG of 10,000 x 10,000 that unpacks": (v1, image, png(10_000, bomb)),
        "PNG of 7,000 x 7,000, all black": (v1, image, png(7_000, bomb)),
        "33 MB": (v1, image, bytes(33 << 20)),
        "JSON of 16 million commas": (v1, words, b'{"image": [' + b"1," * 16_000_000 + b"1]}"),
        "JSON of a million brackets": (hub, words, b"[" * 1_000_000),
        "500 pictures": (hub, words, json.dumps({"images": [text] * 500}).encode()),
        "wrong base64": (hub, words, json.dumps({"images": ["%" * 100_000]}).encode()),
    }


def png(side: int, data: bytes) -> bytes:
    """A grey PNG whose head says this side."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def together(work: Callable[[], object], count: int) -> None:
    """Does the same in several threads, and waits for them."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def load(port: int, body: bytes, clients: int, seconds: float) -> Tally:
    """Clients that ask until the time is over; all their answers together."""
    end = time.monotonic() + seconds
    tallies = [Tally() for _ in range(clients)]
    threads = [threading.Thread(target=client, args=(port, body, end, tally)) for tally in tallies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = Tally()
    for tally in tallies:
        together.seconds += tally.seconds
        together.statuses += tally.statuses
    return together


def client(port: int, body: bytes, end: float, tally: Tally) -> None:
    """One client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while (start := time.monotonic()) < end:
        try:
            status = str(ask(connection, body))
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
            connection.close()
        tally.statuses[status] += 1
        if status == "200":
            tally.seconds.append(time.monotonic() - start)
        else:
            time.sleep(PAUSE_S)
    connection.close()


def ask(connection: http.client.HTTPConnection, body: bytes) -> int:
    """One request; its answer is read."""
    connection.request("POST", "/v1/predict", body, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def wait_for(service: subprocess.Popen[bytes], log: Any) -> int:
    """The port of a service that has come up."""
    while service.poll() is None:
        log.seek(0)
        for line in log:
            if "ready: http://" in line:
                return int(line.rsplit(":", 1)[1])
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(log.read())


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    """Resident memory of a process (Linux); ``VmHWM``: its most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def queue_cost() -> float:
    """Seconds that a picture takes through the queue and back where the model takes none."""
    from solov2.serve.batcher import Batcher
    from solov2.serve.models import ServedModel
    from solov2.structures import Instances

    class Instant:
        def predict_batch(self, pictures: list[Any], threshold: float) -> list[Instances]:
            return [Instances.empty((8, 8)) for _ in pictures]

    model = ServedModel("instant", Instant(), "", "", "")  # type: ignore[arg-type]  # what a predictor is to the queue
    batcher = Batcher(8, 0.01)
    picture = np.zeros((8, 8, 3), np.uint8)
    seconds = []
    for _ in range(QUEUE_REQUESTS):
        start = time.monotonic()
        batcher.submit(model, picture, start + 60).result()
        seconds.append(time.monotonic() - start)
    batcher.close()
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
