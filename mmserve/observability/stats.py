"""What is counted for a model as it happens: plain integers, which metrics makes its series of when it is asked.

Not counters of prometheus_client: their locks and look-ups cost several microseconds each, on the path of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

# Upper bounds, in seconds, of the buckets of latencies and of waits. In steps of 2 to 2.5, so that a quantile read off
# them is wrong by no more than that, from what the front itself takes to the default `request_timeout`; wider at the
# end, where a caller has long noticed. Each is a line per model and histogram in every answer of `GET /metrics`.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0)
# The same for requests in a batch.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Queued(Protocol):
    """What is known here of a request: when it was queued, in monotonic seconds."""

    @property
    def queued_at(self) -> float: ...


class ModelStats:
    """The counts of one model, or of all that have none of their own. They only ever grow.

    Each list of counts has one for each of its bounds, and a last one for what is above them all.
    """

    __slots__ = (
        "cold_start_seconds",
        "cold_starts",
        "evictions",
        "latencies",
        "latency_seconds",
        "requests",
        "sizes",
        "starts",
        "stops",
        "wait_seconds",
        "waits",
    )

    def __init__(self) -> None:
        self.requests: dict[int, int] = {}
        self.latencies = [0] * (len(SECONDS) + 1)
        self.latency_seconds = 0.0
        self.waits = [0] * (len(SECONDS) + 1)
        self.wait_seconds = 0.0
        self.sizes = [0] * (len(SIZES) + 1)
        self.starts: dict[str, int] = {}
        self.stops: dict[str, int] = {}
        self.cold_starts = 0
        self.cold_start_seconds = 0.0
        self.evictions = 0

    def answered(self, status: int, seconds: float) -> None:
        """A request got this status, so long after it arrived. 0.3 us."""
        requests = self.requests
        requests[status] = requests.get(status, 0) + 1
        self.latencies[bisect_left(SECONDS, seconds)] += 1
        self.latency_seconds += seconds

    def dispatched(self, requests: Sequence[Queued], now: float) -> None:
        """A worker took these requests as one batch. 0.4 us for one, and 0.15 us for each more."""
        waits = self.waits
        waited = 0.0
        for request in requests:
            seconds = now - request.queued_at
            waits[bisect_left(SECONDS, seconds)] += 1
            waited += seconds
        self.wait_seconds += waited
        self.sizes[bisect_left(SIZES, len(requests))] += 1

    def worker_started(self, reason: str) -> None:
        """`reason` is one of a few short words, here and below: each is a series of every model."""
        self.starts[reason] = self.starts.get(reason, 0) + 1

    def worker_stopped(self, reason: str) -> None:
        self.stops[reason] = self.stops.get(reason, 0) + 1

    def cold_start(self, seconds: float) -> None:
        """A sleeping model was asked, and was ready so long after that."""
        self.cold_starts += 1
        self.cold_start_seconds += seconds

    def evicted(self) -> None:
        """A worker was stopped to make room in memory for another model's."""
        self.evictions += 1
