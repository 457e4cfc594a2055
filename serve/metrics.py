"""What a replica counts, as Prometheus reads it: Ray's metrics carry it to each node's exporter.

A number handed to Ray costs 3 us on the way of a request, and a request has four of them: they are added up here in
plain Python and handed over once a second.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from typing import Final

from ray.serve import metrics as ray_metrics

from serve.models import ServedModel

FLUSH_S: Final = 1.0
"""How often the numbers are handed to Ray."""

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
MOST_SAMPLES: Final = 200
"""Observations kept between two hand-overs, which take 3 us each in one piece; more would say the same."""


class Metrics:
    """The numbers of one replica; used on its event loop."""

    def __init__(self) -> None:
        self._requests: Tally[tuple[str, str, str]] = Tally()
        self._images: Tally[tuple[str, str]] = Tally()
        self._batch_sizes: list[float] = []
        self._seconds: dict[str, list[float]] = {"request": [], "queue": [], "decode": [], "inference": []}
        self._version = ""
        self._in_flight = 0
        self._busy = 0.0
        self._changed_at = self._asked_at = time.monotonic()
        self._ray = _RayMetrics()

    def arrived(self) -> None:
        """A request began to be worked on."""
        self._settle()
        self._in_flight += 1

    def left(self, protocol: str, status: int, code: str, seconds: float) -> None:
        """A request was answered, after so many seconds."""
        self._settle()
        self._in_flight -= 1
        self._requests[protocol, str(status), code] += 1
        self._sample("request", seconds)

    def average_in_flight(self) -> float:
        """Requests in work, on average since this was asked last: what the number of replicas follows."""
        self._settle()
        now = time.monotonic()
        busy, self._busy = self._busy, 0.0
        elapsed, self._asked_at = now - self._asked_at, now
        return busy / elapsed if elapsed > 0 else float(self._in_flight)

    def batch(self, images: int, seconds: float, waited_s: float) -> None:
        """A batch was computed, whose first request had waited so long."""
        if len(self._batch_sizes) < MOST_SAMPLES:
            self._batch_sizes.append(images)
        self._sample("inference", seconds)
        self._sample("queue", waited_s)

    def decoded(self, seconds: float) -> None:
        """The images of a request were decoded."""
        self._sample("decode", seconds)

    def answered(self, version: str, images: int, rejected: int) -> None:
        """A version has given so many images their digits, of which some look like none."""
        self._images[version, "true"] += rejected
        self._images[version, "false"] += images - rejected

    def serving(self, model: ServedModel) -> None:
        """This is the current model from now on."""
        if self._version:
            self._ray.model.set(0, tags={"version": self._version})
        self._version = model.reference
        self._ray.model.set(1, tags={"version": self._version})

    def flush(self) -> None:
        """Hand over to Ray what was counted since the last time."""
        for (protocol, status, code), count in self._requests.items():
            self._ray.requests.inc(count, tags={"protocol": protocol, "status": status, "code": code})
        self._requests.clear()
        for (version, rejected), count in self._images.items():
            if count:
                self._ray.images.inc(count, tags={"version": version, "rejected": rejected})
        self._images.clear()
        for size in self._batch_sizes:
            self._ray.batch_size.observe(size)
        self._batch_sizes.clear()
        for phase, samples in self._seconds.items():
            for seconds in samples:
                self._ray.seconds.observe(seconds, tags={"phase": phase})
            samples.clear()
        self._ray.in_flight.set(self._in_flight)

    def _sample(self, phase: str, seconds: float) -> None:
        samples = self._seconds[phase]
        if len(samples) < MOST_SAMPLES:
            samples.append(seconds)

    def _settle(self) -> None:
        now = time.monotonic()
        self._busy += self._in_flight * (now - self._changed_at)
        self._changed_at = now


class _RayMetrics:
    def __init__(self) -> None:
        self.requests = ray_metrics.Counter(
            "mnist_requests", description="Requests answered.", tag_keys=("protocol", "status", "code")
        )
        self.images = ray_metrics.Counter(
            "mnist_images", description="Images that got a digit.", tag_keys=("version", "rejected")
        )
        self.batch_size = ray_metrics.Histogram(
            "mnist_batch_images", description="Images in a batch.", boundaries=list(SIZES)
        )
        self.seconds = ray_metrics.Histogram(
            "mnist_seconds",
            description="Seconds by phase: request, queue (of a batch's first), decode, inference (of a batch).",
            boundaries=list(SECONDS),
            tag_keys=("phase",),
        )
        self.in_flight = ray_metrics.Gauge("mnist_in_flight", description="Requests in work.")
        self.model = ray_metrics.Gauge(
            "mnist_model", description="1 for the version that is served, 0 for those before.", tag_keys=("version",)
        )
