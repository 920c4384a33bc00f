"""What `/metrics` tells, in Prometheus' form."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Numbers of one server; no prompt is a label.

    Attributes:
        ended: jobs that came to their end, by status.
        refused: requests that were not met, by code.
        batches: sizes of the batches that were made.
        waited: seconds from a job's arrival to its beginning.
        made: seconds from its beginning to its end.
        compiled: batches for which something was compiled.
        kept: bytes of what is kept.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.ended = Counter("hotshot_jobs", "Jobs ended", ["status"], registry=self._registry)
        self.refused = Counter(
            "hotshot_refused", "Requests refused", ["code"], registry=self._registry
        )
        self.batches = Histogram(
            "hotshot_batch_clips",
            "Clips made together",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )
        self.waited = Histogram(
            "hotshot_wait_seconds", "Time in the queue", buckets=_SECONDS, registry=self._registry
        )
        self.made = Histogram(
            "hotshot_job_seconds", "Time of making", buckets=_SECONDS, registry=self._registry
        )
        self.compiled = Counter(
            "hotshot_compilations", "Batches that compiled", registry=self._registry
        )
        self.kept = Gauge("hotshot_kept_bytes", "Bytes of jobs kept", registry=self._registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Tells how long the queue is whenever somebody asks."""
        gauge = Gauge("hotshot_queue_jobs", "Jobs that wait", registry=self._registry)
        gauge.set_function(length)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
