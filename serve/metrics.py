"""What a replica counts, as Prometheus reads it: Ray's metrics carry it to each node's exporter.

A number handed to Ray costs 3 us on the way of a request, and a request has four of them: they are added up here in
plain Python and handed over once a second. Ray's own histograms take one observation at a time, so ours are gauges with
the names and labels that a histogram has for Prometheus.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from ray.serve import metrics as ray_metrics

from serve.models import ServedModel

FLUSH_S: Final = 1.0
"""How often the numbers are handed to Ray."""

SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PHASES: Final = ("request", "queue", "decode", "inference")


class Metrics:
    """The numbers of one replica; used on its event loop."""

    def __init__(self) -> None:
        self._requests: Tally[tuple[str, str, str]] = Tally()
        self._images: Tally[tuple[str, str]] = Tally()
        self._batch_images = Histogram(SIZES)
        self._seconds = {phase: Histogram(SECONDS) for phase in PHASES}
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
        self._seconds["request"].observe(seconds)

    def average_in_flight(self) -> float:
        """Requests in work, on average since this was asked last: what the number of replicas follows."""
        self._settle()
        now = time.monotonic()
        busy, self._busy = self._busy, 0.0
        elapsed, self._asked_at = now - self._asked_at, now
        return busy / elapsed if elapsed > 0 else float(self._in_flight)

    def batch(self, images: int, seconds: float, waited_s: float) -> None:
        """A batch was computed, whose first request had waited so long."""
        self._batch_images.observe(images)
        self._seconds["inference"].observe(seconds)
        self._seconds["queue"].observe(waited_s)

    def decoded(self, seconds: float) -> None:
        """The images of a request were decoded."""
        self._seconds["decode"].observe(seconds)

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
        self._ray.batch_images.set(self._batch_images, {})
        for phase, seconds in self._seconds.items():
            self._ray.seconds.set(seconds, {"phase": phase})
        self._ray.in_flight.set(self._in_flight)

    def _settle(self) -> None:
        now = time.monotonic()
        self._busy += self._in_flight * (now - self._changed_at)
        self._changed_at = now


class Histogram:
    """Observations since the beginning, counted by the bounds between which they are.

    Args:
        bounds: Each is the largest value of its bucket; above the last there is one more.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, int]]:
        """For each bound, as Prometheus writes it, how many observations were at most that; the last has all."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


class _RayHistogram:
    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()) -> None:
        self._bucket = ray_metrics.Gauge(f"{name}_bucket", description=description, tag_keys=(*tag_keys, "le"))
        self._count = ray_metrics.Gauge(f"{name}_count", description=description, tag_keys=tag_keys)
        self._sum = ray_metrics.Gauge(f"{name}_sum", description=description, tag_keys=tag_keys)

    def set(self, histogram: Histogram, tags: dict[str, str]) -> None:
        buckets = histogram.buckets()
        for bound, count in buckets:
            self._bucket.set(count, tags={**tags, "le": bound})
        self._count.set(buckets[-1][1], tags=tags)
        self._sum.set(histogram.total, tags=tags)


class _RayMetrics:
    def __init__(self) -> None:
        self.requests = ray_metrics.Counter(
            "mnist_requests", description="Requests answered.", tag_keys=("protocol", "status", "code")
        )
        self.images = ray_metrics.Counter(
            "mnist_images", description="Images that got a digit.", tag_keys=("version", "rejected")
        )
        self.batch_images = _RayHistogram("mnist_batch_images", "Images in a batch.")
        self.seconds = _RayHistogram(
            "mnist_seconds",
            "Seconds by phase: request, queue (of a batch's first), decode, inference (of a batch).",
            ("phase",),
        )
        self.in_flight = ray_metrics.Gauge("mnist_in_flight", description="Requests in work.")
        self.model = ray_metrics.Gauge(
            "mnist_model", description="1 for the version that is served, 0 for those before.", tag_keys=("version",)
        )
