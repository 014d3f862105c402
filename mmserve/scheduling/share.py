"""Whose batch runs next when more models have work than the host has CPUs.

Running batches are bounded near the usable CPUs. Where more models want to run, the one goes first that has used the
least time so far, in proportion to its weight (weighted fair queueing): a model offered ten times what it can serve
waits for its turn as the others do, and one that was quiet is not paid back for that.

A batch counts for a quantum at the most. What runs for longer, be it computing, waiting or hanging, is the operating
system's to share out, which does that well with processes that run for long; so nobody waits here for a long batch.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

# Seconds. Several times what a batch of a small model takes, and not long to wait: with 0.01, one request in twenty
# waited that long beside a flooded model, since on a busy host every batch takes longer than it would.
QUANTUM = 0.002
# Seconds of one batch that count. What takes longer has mostly waited, for something else or for the others.
_MOST_CHARGED = 0.05


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
        # Who comes from idleness begins with what the last one that was let in had used. This goes on with the work that
        # is done as well, at half the pace of those who always want some: one that has used more would else wait for
        # as long as others come that have used nothing (measured with 1,000 models in turn: up to 0.8 s).
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
