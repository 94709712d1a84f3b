"""The queue: who goes together, who waits for whom, and what happens to the late, the gone and the unlucky."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytest

from solov2.errors import ImageError
from solov2.serve.batcher import Batcher
from solov2.serve.models import Models, ServedModel
from solov2.serve.refusals import Budget, RefusedError
from tests.serve.conftest import Halves, halves

PATIENCE = 20
PICTURE = np.zeros((4, 6, 3), np.uint8)


class Gate:
    """A predictor's work that goes on when the test says so."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self, count: int) -> None:
        self.entered.release()
        assert self.leave.acquire(timeout=PATIENCE)


@pytest.fixture
def make() -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def _make(size: int = 4, wait_s: float = 0.0, **values: Any) -> Batcher:
        made.append(Batcher(size, wait_s, **values))
        return made[-1]

    yield _make
    for batcher in made:
        batcher.close()


def batches(models: Models) -> list[int]:
    predictor = models.default.predictor
    assert isinstance(predictor, Halves)
    return predictor.batches


def soon(seconds: float = PATIENCE) -> float:
    return monotonic() + seconds


def test_those_who_wait_go_together_up_to_the_size(make: Callable[..., Batcher]) -> None:
    gate = Gate()
    models = halves(gate)
    counted: list[int] = []
    batcher = make(size=4, on_batch=lambda count, seconds: counted.append(count))
    futures = [batcher.submit(models.default, PICTURE, soon())]
    assert gate.entered.acquire(timeout=PATIENCE)
    futures += [batcher.submit(models.default, PICTURE, soon()) for _ in range(6)]
    assert batcher.waiting == 6
    gate.leave.release(3)
    results = [future.result(PATIENCE) for future in futures]
    assert batches(models) == counted == [1, 4, 2]
    assert all(len(result.instances) == 2 for result in results)
    assert all(result.queue_s >= 0 and result.predict_s > 0 for result in results)
    assert batcher.retry_after() == 1


def test_slow_models_get_small_batches(make: Callable[..., Batcher]) -> None:
    gate = Gate()
    models = halves(gate)
    batcher = make(size=4)
    futures = [batcher.submit(models.default, PICTURE, soon())]
    assert gate.entered.acquire(timeout=PATIENCE)
    futures += [batcher.submit(models.default, PICTURE, soon()) for _ in range(4)]
    batcher.picture_s = 0.6  # which its next picture, a quick one, makes 0.48 and no less
    gate.leave.release(5)
    for future in futures:
        future.result(PATIENCE)
    assert batches(models)[:2] == [1, 2]


def test_models_do_not_mix(make: Callable[..., Batcher]) -> None:
    gate = Gate()
    first, second = halves(gate).default, ServedModel("other", Halves(), "", "torch", "cpu")  # type: ignore[arg-type]
    batcher = make()
    futures = [batcher.submit(first, PICTURE, soon())]
    assert gate.entered.acquire(timeout=PATIENCE)
    futures += [batcher.submit(model, PICTURE, soon()) for model in (second, first, second)]
    gate.leave.release(2)
    for future in futures:
        future.result(PATIENCE)
    assert first.predictor.batches == [1, 1]  # type: ignore[attr-defined]
    assert second.predictor.batches == [2]  # type: ignore[attr-defined]


def test_a_picture_waits_for_one_that_is_being_decoded(make: Callable[..., Batcher]) -> None:
    models = halves()
    batcher = make(wait_s=PATIENCE)
    with batcher.expecting():
        first = batcher.submit(models.default, PICTURE, soon())
        second = batcher.submit(models.default, PICTURE, soon())
        assert not first.done()
    assert first.result(PATIENCE).instances is not second.result(PATIENCE).instances
    assert batches(models) == [2]


def test_a_lone_picture_waits_for_nobody(make: Callable[..., Batcher]) -> None:
    models = halves()
    result = make(wait_s=3600).submit(models.default, PICTURE, soon()).result(PATIENCE)
    assert result.queue_s < PATIENCE


def test_it_does_not_wait_for_ever(make: Callable[..., Batcher]) -> None:
    models = halves()
    batcher = make(wait_s=0.02)
    with batcher.expecting():
        batcher.submit(models.default, PICTURE, soon()).result(PATIENCE)
    assert batches(models) == [1]


def test_the_late_and_the_gone_cost_nothing(make: Callable[..., Batcher]) -> None:
    gate = Gate()
    models = halves(gate)
    batcher = make()
    running = batcher.submit(models.default, PICTURE, soon())
    assert gate.entered.acquire(timeout=PATIENCE)
    late = batcher.submit(models.default, PICTURE, soon(-1))
    gone = batcher.submit(models.default, PICTURE, soon())
    gone.cancel()
    gate.leave.release()
    running.result(PATIENCE)
    with pytest.raises(TimeoutError):
        late.result(PATIENCE)
    after = batcher.submit(models.default, PICTURE, soon())
    gate.leave.release()
    after.result(PATIENCE)
    assert batches(models) == [1, 1]


def test_the_gone_leave_nothing_in_the_queue(make: Callable[..., Batcher]) -> None:
    gate = Gate()
    models = halves(gate)
    batcher = make()
    running = batcher.submit(models.default, PICTURE, soon())
    assert gate.entered.acquire(timeout=PATIENCE)
    pictures = [np.zeros((4, 6, 3), np.uint8) for _ in range(3)]
    held = [weakref.ref(picture) for picture in pictures]
    futures = [batcher.submit(models.default, picture, soon()) for picture in pictures]
    del pictures
    assert futures[0].cancel()
    assert futures[2].cancel()
    assert batcher.waiting == 1
    assert [picture() is None for picture in held] == [True, False, True]  # while the batch before them runs
    gate.leave.release(2)
    running.result(PATIENCE)
    futures[1].result(PATIENCE)
    assert batches(models) == [1, 1]


def test_a_model_that_loses_a_picture_does_not_end_the_thread(make: Callable[..., Batcher]) -> None:
    class Careless(Halves):
        def predict_batch(self, pictures: list[np.ndarray], threshold: float) -> list[Any]:
            return [] if len(pictures) == 1 and pictures[0].any() else super().predict_batch(pictures, threshold)

    model = ServedModel("careless", Careless(), "", "torch", "cpu")  # type: ignore[arg-type]
    batcher = make()
    with pytest.raises(ValueError, match="shorter"):
        batcher.submit(model, PICTURE + np.uint8(1), soon()).result(PATIENCE)
    assert len(batcher.submit(model, PICTURE, soon()).result(PATIENCE).instances) == 2


def test_one_picture_s_trouble_is_not_the_others(make: Callable[..., Batcher]) -> None:
    gate = Gate()

    class Picky(Halves):
        def predict_batch(self, pictures: list[np.ndarray], threshold: float) -> list[Any]:
            if any(picture.any() for picture in pictures):
                raise ImageError("too bright")
            return super().predict_batch(pictures, threshold)

    model = ServedModel("picky", Picky(gate), "", "torch", "cpu")  # type: ignore[arg-type]
    batcher = make()
    futures = [batcher.submit(model, PICTURE, soon())]
    assert gate.entered.acquire(timeout=PATIENCE)
    futures += [batcher.submit(model, PICTURE + bright, soon()) for bright in (0, 255, 0)]  # type: ignore[arg-type]
    gate.leave.release(PATIENCE)
    with pytest.raises(ImageError, match="too bright"):
        futures.pop(2).result(PATIENCE)
    assert [len(future.result(PATIENCE).instances) for future in futures] == [2, 2, 2]


def test_the_end_finishes_what_runs_and_refuses_the_rest(make: Callable[..., Batcher]) -> None:
    gate = Gate()
    models = halves(gate)
    batcher = make()
    running = batcher.submit(models.default, PICTURE, soon())
    assert gate.entered.acquire(timeout=PATIENCE)
    waiting = batcher.submit(models.default, PICTURE, soon())
    closer = threading.Thread(target=batcher.close)
    closer.start()
    with pytest.raises(RefusedError, match="being stopped"):
        waiting.result(PATIENCE)
    gate.leave.release()
    closer.join(PATIENCE)
    assert len(running.result(PATIENCE).instances) == 2
    assert not batcher.alive
    with pytest.raises(RefusedError, match="being stopped"):
        batcher.submit(models.default, PICTURE, soon())


def test_a_budget() -> None:
    budget = Budget(10, "used up", lambda: 7)
    budget.take(10)
    with pytest.raises(RefusedError, match="used up") as caught:
        budget.take(1)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "7"})
    budget.give(10)
    budget.take(10)
