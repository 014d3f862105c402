"""Whose batch runs next when more models have long work than the host has CPUs.

Running batches that compute for long are bounded near the usable CPUs. Where more models want to run one, the one goes
first that has used the least time so far, in proportion to its weight (weighted fair queueing): a model offered ten
times what it can serve waits for its turn as the others do, and one that was quiet is not paid back for that.

Short batches and those that wait for something else than a CPU do not come here: the operating system has them done
sooner than anybody could queue them. (Measured with 1,000 models asked in turn: 0.22 of the reference's rate, and 0.15
to 0.19 when they stood in line here.) Nor does a batch count for longer than a quantum. What runs on, be it computing
or hanging, is the operating system's to share out, which does that well with processes that run for long; so nobody
waits for a very long one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

# Seconds of its handler's time from which on a batch is long: what the operating system lets a process run at once.
LONG = 0.003
# Seconds that one may keep others waiting.
QUANTUM = 0.05
# Seconds of one batch that count. What takes longer has mostly waited, for something else or for the others.
_MOST_CHARGED = 0.25


class Sharer(Protocol):
    """A queue that wants to run batches. `used` is its time so far, over its weight; only changed here."""

    used: float
    in_line: bool

    @property
    def weight(self) -> float: ...


class _Running(NamedTuple):
    since: float
    weight: float


Q = TypeVar("Q", bound=Sharer)
W = TypeVar("W", bound=Hashable)


class CpuShare(Generic[Q, W]):
    """`slots` batches run at one time. Times are monotonic, in seconds."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        # Since when, the longest running first.
        self._running: dict[W, _Running] = {}
        self._line: list[tuple[float, int, float, Q]] = []
        self._order = itertools.count()
        # Who comes from idleness begins with what the last one that was let in had used. This goes on with the work
        # that is done as well, at half the pace of those who always want some: one that has used more would else wait
        # for as long as others come that have used nothing (measured with 1,000 models in turn: up to 0.8 s).
        self._now_used = 0.0
        # Of all that run or stand in line.
        self._weight = 0.0

    @property
    def line(self) -> int:
        return len(self._line)

    def has_room(self, queue: Q, now: float) -> bool:
        """Whether the queue may run a batch now, or has to stand in line."""
        if queue.in_line or (len(self._running) >= self._slots and not self._outlasted(now)):
            return False
        self._sort_first()
        return not self._line or max(queue.used, self._now_used) <= self._line[0][0]

    def line_up(self, queue: Q) -> None:
        if not queue.in_line:
            queue.used = max(queue.used, self._now_used)
            queue.in_line = True
            heapq.heappush(self._line, (queue.used, next(self._order), queue.weight, queue))
            self._weight += queue.weight

    def next(self, now: float) -> Q | None:
        """Who is let in from the line, if anybody is."""
        if not self._line or not (len(self._running) < self._slots or self._outlasted(now)):
            return None
        self._sort_first()
        _, _, weight, queue = heapq.heappop(self._line)
        self._weight -= weight
        queue.in_line = False
        return queue

    def started(self, worker: W, queue: Q, now: float) -> None:
        queue.used = self._now_used = max(queue.used, self._now_used)
        self._running[worker] = _Running(now, queue.weight)
        self._weight += queue.weight

    def ended(self, worker: W, queue: Q, seconds: float) -> None:
        """A batch took so long."""
        self._let_go(worker)
        charged = min(seconds, _MOST_CHARGED)
        queue.used += charged / queue.weight
        self._now_used += charged / (2 * (self._weight + queue.weight))

    def due(self) -> float | None:
        """When somebody in line may go, if nothing ends before."""
        return next(iter(self._running.values())).since + QUANTUM if self._line and self._running else None

    def _sort_first(self) -> None:
        """Puts those further back whose other batches have ended, and were added to what they have used, since they
        lined up. Otherwise a model with several workers would pay for none of them."""
        while self._line and self._line[0][3].used > self._line[0][0]:
            _, _, weight, queue = self._line[0]
            heapq.heapreplace(self._line, (queue.used, next(self._order), weight, queue))

    def _outlasted(self, now: float) -> bool:
        """Lets go of what has run for a quantum."""
        late = [worker for worker, running in self._running.items() if now - running.since >= QUANTUM]
        for worker in late:
            self._let_go(worker)
        return bool(late)

    def _let_go(self, worker: W) -> None:
        running = self._running.pop(worker, None)
        if running is not None:
            self._weight -= running.weight
