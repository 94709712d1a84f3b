"""What both protocols share: pictures of a request are admitted, decoded, predicted, and given back as instances."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import TypeVar

import torch
from starlette.requests import ClientDisconnect, Request

from solov2.data.image import RGB
from solov2.errors import ImageError
from solov2.serve.batcher import Batcher, Predicted
from solov2.serve.metrics import Metrics
from solov2.serve.models import Models, ServedModel, served_name
from solov2.serve.options import ServeOptions
from solov2.serve.pictures import decode_picture, open_picture
from solov2.serve.refusals import Budget, RefusedError, busy, too_large, unusable
from solov2.structures import Instances

T = TypeVar("T")

MAX_HELPERS = 4
"""Threads that decode pictures and encode answers, at most one a core."""

SHARE_OF_DEADLINE = 0.5
"""Expected wait above which a request is refused at once, instead of at its deadline."""


@dataclass(frozen=True)
class Found:
    """One picture and what was found in it.

    Attributes:
        picture: (H, W, 3) RGB, upright.
        instances: everything the model keeps, best first.
        decode_s: seconds it took to decode the picture.
        queue_s: seconds it waited.
        predict_s: seconds its batch ran.
    """

    picture: RGB
    instances: Instances
    decode_s: float
    queue_s: float
    predict_s: float

    def above(self, threshold: float) -> Instances:
        """The instances of at least this score."""
        return self.instances[self.instances.scores >= threshold]


class Service:
    """Models, queue, limits and counters of one service.

    Args:
        models: loaded.
        options: the operator's.
    """

    def __init__(self, models: Models, options: ServeOptions) -> None:
        self.models = models
        self.options = options
        self.limits = limits = options.limits
        self.defaults = {served_name(name): values for name, values in options.defaults.items()}
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.slots.used)
        self.batcher = Batcher(limits.batch, limits.batch_wait_s, self.metrics.batch)
        retry_after = self.batcher.retry_after
        self.bodies = Budget(limits.buffered_bytes, "too many requests are being received; try again later")
        self.slots = Budget(limits.queue, f"{limits.queue} pictures are waiting already; try again later", retry_after)
        self.pixels = Budget(limits.waiting_pixels, "too many large pictures are waiting; try again later", retry_after)
        helpers = min(MAX_HELPERS, os.cpu_count() or 1)
        self._helpers = ThreadPoolExecutor(helpers, "solov2-pictures")
        self._turns = asyncio.Semaphore(helpers)
        self.stopping = False

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.batcher.alive and not self.stopping

    def close(self) -> None:
        """Ends its threads; what still waits is refused."""
        self.stopping = True
        self.batcher.close()
        self._helpers.shutdown(cancel_futures=True)

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Does work in a thread, so that other requests go on meanwhile.

        Threads get no more work than they can begin: what a client has sent who has gone away is forgotten at once,
        and does not lie in their queue behind what takes long.
        """
        await self._turns.acquire()
        give_back = partial(_later, asyncio.get_running_loop(), self._turns.release)
        try:
            future = self._helpers.submit(work)
        except RuntimeError:  # they have been ended
            self._turns.release()
            raise busy("the service is being stopped; try again when it is up") from None
        future.add_done_callback(lambda _: give_back())
        try:
            return await asyncio.wrap_future(future)
        finally:
            del future  # what goes wrong holds this frame; held by it in turn, pictures would wait for gc

    def check_room(self) -> None:
        """Looks whether a request has a chance; also before its body is read, so that a refusal costs little.

        Raises:
            RefusedError: 503 if there is no place in the queue, the wait would be too long, or the service is being
                stopped.
        """
        if self.stopping:
            raise busy("the service is being stopped; try again when it is up")
        if self.batcher.picture_s * self.slots.used > SHARE_OF_DEADLINE * self.limits.deadline_s:
            raise busy("those who wait already would make this one late; try again later", self.batcher.retry_after())
        self.slots.take(1)
        self.slots.give(1)

    async def predict(self, request: Request, model: ServedModel, files: Sequence[bytes]) -> list[Found]:
        """Predicts the pictures of a request, whose body has been read.

        Args:
            request: is watched: if the client goes away, so does its place in the queue.
            model: one of this service's.
            files: bytes of picture files.

        Raises:
            RefusedError: 503 if there is no place in the queue or the service is being stopped, 504 at the deadline,
                413 if there are more pictures than places, and what :mod:`solov2.serve.pictures` says about a picture.
            ClientDisconnect: if the client went away.
        """
        if len(files) > self.slots.limit:
            raise too_large(f"{len(files)} pictures are more than the queue's {self.slots.limit}; send fewer at once")
        self.check_room()
        self.slots.take(len(files))
        work = asyncio.ensure_future(self._predict(model, files))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({work, gone}, timeout=self.limits.deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return await work
            if gone.done():
                raise ClientDisconnect
            raise self._late()
        except TimeoutError:
            raise self._late() from None
        except (MemoryError, torch.OutOfMemoryError):
            raise busy("the memory is used up; try again later") from None
        except ImageError as error:  # an exported model takes pictures of some sizes only
            raise unusable(str(error)) from None
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            self.slots.give(len(files))
            del work, gone  # as in off_loop

    async def _predict(self, model: ServedModel, files: Sequence[bytes]) -> list[Found]:
        deadline = monotonic() + self.limits.deadline_s
        pixels = 0
        pictures: list[tuple[RGB, float]] = []
        futures: list[Future[Predicted]] = []
        try:
            with self.batcher.expecting():
                for data in files:
                    start = monotonic()
                    image = await self.off_loop(partial(open_picture, data, self.limits.pixels))
                    count = image.width * image.height
                    if pixels + count > self.pixels.limit:
                        raise too_large(f"the pictures have more than {self.pixels.limit} pixels together; send fewer")
                    self.pixels.take(count)
                    pixels += count
                    picture = await self.off_loop(partial(decode_picture, image))
                    pictures.append((picture, monotonic() - start))
                    futures.append(self.batcher.submit(model, picture, deadline))
            predicted = await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            while futures:
                futures.pop().cancel()
            self.pixels.give(pixels)
        return [self._counted(model, *decoded, got) for decoded, got in zip(pictures, predicted, strict=True)]

    def _counted(self, model: ServedModel, picture: RGB, decode_s: float, got: Predicted) -> Found:
        for stage, seconds in (("decode", decode_s), ("queue", got.queue_s), ("predict", got.predict_s)):
            self.metrics.stage(stage, seconds)
        self.metrics.pictures.labels(model.name).inc()
        return Found(picture, got.instances, decode_s, got.queue_s, got.predict_s)

    def _late(self) -> RefusedError:
        return RefusedError(
            HTTPStatus.GATEWAY_TIMEOUT,
            f"no result within {self.limits.deadline_s:g} s; try again, or send less at once",
        )


def _later(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # a loop that has ended
        loop.call_soon_threadsafe(call)


async def _gone(request: Request) -> None:
    """Ends when the client goes away; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
