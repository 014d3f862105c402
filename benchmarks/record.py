"""What became of each request of a load, and when: windows of time can be compared afterwards, across processes."""

from __future__ import annotations

import itertools
import math
import time
from array import array
from collections import Counter
from collections.abc import Sequence

import uvloop

from benchmarks.servers import Address
from benchmarks.traffic import CONNECTIONS, Call, Load, send

OK = 200
# Instead of a status: answered 200, but not what was right.
WRONG = 0


class Record(Load):
    """A load that remembers every answer.

    Times are those of `time.perf_counter()`, which on Linux is one clock for all processes.
    """

    def __init__(self) -> None:
        super().__init__()
        # When the first request was due.
        self.began = math.nan
        # Of each answer: its status, when it came, how long it took since it was due, and how much of that the client
        # itself has kept it back.
        self.statuses = array("h")
        self.came = array("d")
        self.took = array("d")
        self.held = array("d")

    def note(self, call: Call, status: int, body: bytes, seconds: float, held: float = 0.0) -> None:
        right = self.answered
        super().note(call, status, body, seconds)
        self.statuses.append(status if status != OK or self.answered > right else WRONG)
        self.came.append(time.perf_counter())
        self.took.append(seconds)
        self.held.append(held)

    @property
    def counts(self) -> Counter[int]:
        return Counter(self.statuses)

    def rate_between(self, since: float, until: float) -> float:
        """Right answers a second that came in this time."""
        right = sum(
            status == OK and since <= came < until for status, came in zip(self.statuses, self.came, strict=True)
        )
        return right / (until - since)

    def times(self, status: int = OK, since: float = -math.inf, until: float = math.inf) -> list[float]:
        """Seconds from when a request was due to its answer, of those due in this time and answered so."""
        return [
            took
            for found, came, took in zip(self.statuses, self.came, self.took, strict=True)
            if found == status and since <= came - took < until
        ]

    def response_times(self, status: int) -> list[float]:
        """The same from when a request was sent: what the server alone has taken."""
        return [
            took - held
            for found, took, held in zip(self.statuses, self.took, self.held, strict=True)
            if found == status
        ]

    def problems_but(self, status: int) -> str:
        """The errors with their counts, but for answers of this status."""
        errors = {error: count for error, count in self.errors.items() if error != f"status {status}"}
        return ", ".join(f"{count} x {error}" for error, count in errors.items())


def closed_loop(address: Address, calls: Sequence[Call], seconds: float, *, connections: int = CONNECTIONS) -> Record:
    """Makes the calls over and over, each connection its next one as soon as the last one is answered."""
    record = Record()
    record.began = time.perf_counter()
    end = record.began + seconds
    endless = itertools.takewhile(lambda _: time.perf_counter() < end, itertools.cycle(calls))
    uvloop.run(send(address, endless, record, connections=connections))
    return record
