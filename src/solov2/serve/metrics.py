"""What the service tells Prometheus about itself."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STAGES = ("decode", "queue", "predict", "encode", "total")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The counters of one service, in a registry of its own.

    Args:
        waiting: tells how many pictures are in the queue.
        in_progress: tells how many pictures are decoded, wait or run.
    """

    def __init__(self, waiting: Callable[[], float], in_progress: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "solov2_requests", "Requests by route and HTTP status.", ("route", "status"), registry=self._registry
        )
        self.envelopes = Counter(
            "solov2_hub_answers", "Answers in PaddleHub's protocol by its status.", ("status",), registry=self._registry
        )
        self.pictures = Counter("solov2_pictures", "Pictures predicted, by model.", ("model",), registry=self._registry)
        self._stages = Histogram(
            "solov2_stage_seconds",
            "Seconds a picture spends in a stage.",
            ("stage",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "solov2_batch_pictures", "Pictures of a batch.", buckets=BATCH_SIZES, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "solov2_batch_seconds", "Seconds a batch runs.", buckets=SECONDS, registry=self._registry
        )
        for name, text, tell in (
            ("solov2_queue_pictures", "Pictures that wait for a batch.", waiting),
            ("solov2_pictures_in_progress", "Pictures that are decoded, wait or run.", in_progress),
        ):
            Gauge(name, text, registry=self._registry).set_function(tell)
        for stage in STAGES:
            self._stages.labels(stage)

    def batch(self, pictures: int, seconds: float) -> None:
        """Counts a batch."""
        self._batches.observe(pictures)
        self._batch_seconds.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """Counts the time of one picture in one of :data:`STAGES`."""
        self._stages.labels(name).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text form."""
        return generate_latest(self._registry)
