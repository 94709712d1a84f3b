"""The service in process, with the shipped models, and files to send to it."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the service is an extra: pip install 'solov2[serve]'")

import httpx
from fastapi import FastAPI
from PIL import Image

from solov2.serve.app import create_app
from solov2.serve.models import Models, ServedModel, load_models
from solov2.serve.options import Limits, ServeOptions
from solov2.serve.service import Service
from solov2.structures import Category, Instances

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60


class Client:
    """Talks to an application in process; its event loop is a thread, so that requests can overlap."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.service: Service = app.state.service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._wait(self._lifespan.__aenter__())
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://service", timeout=PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._client.aclose())
        self._wait(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, method: str, address: str, **values: Any) -> Future[httpx.Response]:
        """A request whose answer is not waited for."""
        return asyncio.run_coroutine_threadsafe(self._client.request(method, address, **values), self._loop)

    def get(self, address: str, **values: Any) -> httpx.Response:
        return self.start("GET", address, **values).result(PATIENCE)

    def post(self, address: str, **values: Any) -> httpx.Response:
        return self.start("POST", address, **values).result(PATIENCE)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


@pytest.fixture(scope="session")
def models() -> Models:
    return load_models(("solov2", "nuclei"), device="cpu")


@pytest.fixture(scope="session")
def session_client(models: Models) -> Iterator[Client]:
    with Client(create_app(models)) as client:
        yield client


@pytest.fixture
def client(session_client: Client) -> Client:
    """The service as it is without options."""
    return session_client


@pytest.fixture(scope="session")
def dog() -> bytes:
    return (EXAMPLES / "dog.jpg").read_bytes()


@pytest.fixture
def make_client() -> Iterator[Callable[..., Client]]:
    """Clients of services with other options."""
    opened: list[Client] = []

    def _make(models: Models, **values: Any) -> Client:
        limits = {name: values.pop(name) for name in list(values) if name in Limits.__dataclass_fields__}
        client = Client(create_app(models, ServeOptions(limits=Limits(**limits), **values)))
        opened.append(client.__enter__())
        return opened[-1]

    yield _make
    for client in opened:
        client.__exit__(None, None, None)


class Halves:
    """Stands in for a predictor: finds the left half of every picture, then the right one."""

    score_threshold = 0.5
    categories = (Category(7, "left"), Category(9, "right"))

    def __init__(self, predict: Callable[[int], object] = lambda count: None) -> None:
        self.batches: list[int] = []
        self._predict = predict

    def predict_batch(self, pictures: list[np.ndarray], threshold: float) -> list[Instances]:
        assert threshold == 0
        self.batches.append(len(pictures))
        self._predict(len(pictures))
        found = []
        for picture in pictures:
            masks = np.zeros((2, *picture.shape[:2]), bool)
            middle = picture.shape[1] // 2
            masks[0, :, :middle], masks[1, :, middle:] = True, True
            found.append(Instances.from_masks(masks, [0, 1], [0.9, 0.4], self.categories))
        return found


def halves(predict: Callable[[int], object] = lambda count: None, name: str = "halves") -> Models:
    predictor: Any = Halves(predict)
    return Models([ServedModel(name, predictor, "Apache-2.0", "torch", "cpu")])


def picture_bytes(width: int = 6, height: int = 4, file_format: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, file_format)
    return stream.getvalue()
