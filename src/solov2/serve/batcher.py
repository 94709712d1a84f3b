"""One thread owns the models: pictures wait in a queue and go through the network together.

A batch begins with the picture that has waited longest. It takes those of the same model that wait, too, up to a
size and to an expected time; it waits for more only while others are being decoded, and not longer than a moment. A
lone client waits for nobody. How many may wait is not decided here, but where requests are admitted.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from solov2.data.image import RGB
from solov2.serve.models import ServedModel
from solov2.serve.refusals import busy
from solov2.structures import Instances

LONGEST_BATCH_S = 1.0
"""A batch is cut to what lately fitted into this: all its pictures wait for its end, and their deadline does not."""

SHARE_OF_LAST = 0.2
"""How far one batch moves the running estimate of the seconds a picture takes."""


@dataclass(frozen=True)
class Predicted:
    """What one picture got.

    Attributes:
        instances: everything the model keeps, whatever its score, best first.
        queue_s: seconds from its arrival in the queue to the start of its batch.
        predict_s: seconds that its batch ran.
    """

    instances: Instances
    queue_s: float
    predict_s: float


@dataclass(eq=False)
class _Job:
    model: ServedModel
    picture: RGB
    deadline: float
    arrived: float = field(default_factory=monotonic)
    future: Future[Predicted] = field(default_factory=Future)


class Batcher:
    """The queue and the thread.

    Args:
        size: pictures of a batch at most.
        wait_s: seconds that a picture waits at most for others which are being decoded.
        on_batch: is told the pictures of each batch and the seconds it ran, in the batcher's thread.

    Attributes:
        picture_s: seconds a picture has taken lately, its share of its batch; 0 before the first.
    """

    def __init__(self, size: int, wait_s: float, on_batch: Callable[[int, float], object] = lambda *_: None) -> None:
        self._size = size
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._coming = 0
        self._closed = False
        self.picture_s = 0.0
        self._thread = threading.Thread(target=self._work, name="solov2-batcher", daemon=True)
        self._thread.start()

    def submit(self, model: ServedModel, picture: RGB, deadline: float) -> Future[Predicted]:
        """Puts a picture into the queue.

        Args:
            model: one of the service's.
            picture: (H, W, 3) RGB.
            deadline: on the clock of :func:`time.monotonic`; a picture that has not begun by then is left out.

        Returns:
            Its result; one that is cancelled before its batch begins leaves the queue, and its picture with it.

        Raises:
            RefusedError: 503, if the service is being stopped.
        """
        job = _Job(model, picture, deadline)
        with self._changed:
            if self._closed:
                raise _stopping()
            self._jobs.append(job)
            self._changed.notify()
        job.future.add_done_callback(self._forget)  # the job itself would make a cycle that holds the picture
        return job.future

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While a picture is being decoded: it may be worth to wait for it."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify()

    @property
    def alive(self) -> bool:
        """Whether it would work on a picture."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return len(self._jobs)

    def retry_after(self) -> int:
        """Whole seconds, at least 1, after which the pictures that wait now will probably be done."""
        return max(1, min(60, math.ceil(self.picture_s * (len(self._jobs) + 1))))

    def close(self) -> None:
        """Lets the running batch end, refuses those that wait, and ends the thread."""
        with self._changed:
            self._closed = True
            refused = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in refused:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_stopping())
        self._thread.join()

    def _forget(self, future: Future[Predicted]) -> None:
        """Lets go of the picture of a client who has gone: its pixels are not counted any more."""
        if future.cancelled():
            with self._changed:
                self._jobs = deque(job for job in self._jobs if job.future is not future)

    # -------------------------------------------------------------------------------- in the thread

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._run(batch)
            del batch  # it would keep its pictures until the next one comes

    def _next(self) -> list[_Job] | None:
        """The next batch; empty if nobody wants its pictures any more, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            first = self._jobs[0]
            patience = first.arrived + self._wait_s - monotonic()
            self._changed.wait_for(self._enough, timeout=max(0.0, patience))
            batch = [job for job in self._jobs if job.model is first.model][: self._fitting()]
            taken = set(map(id, batch))
            self._jobs = deque(job for job in self._jobs if id(job) not in taken)
        wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]
        now = monotonic()
        for job in wanted:
            if job.deadline <= now:
                job.future.set_exception(TimeoutError())
        return [job for job in wanted if job.deadline > now]

    def _enough(self) -> bool:
        return self._closed or self._coming == 0 or len(self._jobs) >= self._fitting()

    def _fitting(self) -> int:
        return max(1, min(self._size, int(LONGEST_BATCH_S / max(self.picture_s, 1e-9))))

    def _run(self, batch: Sequence[_Job]) -> None:
        start = monotonic()
        try:
            # OpenCV's order, as arrays are given to a predictor
            found = batch[0].model.predictor.predict_batch([job.picture[:, :, ::-1] for job in batch], threshold=0.0)
            results = list(zip(batch, found, strict=True))
        except BaseException as error:
            if len(batch) == 1:
                future, batch = batch[0].future, ()  # the error holds this frame, and should not hold the picture
                future.set_exception(error)
                del future
            else:
                for job in batch:  # one picture's trouble is not the others'
                    self._run([job])
            return
        seconds = monotonic() - start
        self.picture_s += SHARE_OF_LAST * (seconds / len(batch) - self.picture_s)
        self._on_batch(len(batch), seconds)
        for job, instances in results:
            job.future.set_result(Predicted(instances, start - job.arrived, seconds))


def _stopping() -> Exception:
    return busy("the service is being stopped; try again when it is up")
