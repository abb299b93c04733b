"""Counts of the service in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Upper ends of the classes of a request's duration, in seconds.
CLASSES_S = (0.1, 0.3, 1, 3, 10, 30, 100)


class Meters:
    """Counts of requests, of their durations and of processed sound."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("vcae_requests", "Requests.", ["path", "status"], registry=self._registry)
        self._seconds = Histogram(
            "vcae_request_seconds", "Durations of requests.", ["path"], buckets=CLASSES_S, registry=self._registry
        )
        self._sound = Counter("vcae_sound_seconds", "Duration of results.", ["task"], registry=self._registry)
        self._jobs = Gauge("vcae_jobs", "Jobs that run or wait.", registry=self._registry)

    def watch(self, taken: Callable[[], int]) -> None:
        """Report the number of jobs that a function returns."""
        self._jobs.set_function(taken)

    def add_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; `path` is one of few."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def add_sound(self, task: str, seconds: float) -> None:
        """Count a result."""
        self._sound.labels(task).inc(seconds)

    def text(self) -> str:
        """Return all counts."""
        return str(generate_latest(self._registry).decode())
