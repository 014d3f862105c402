"""Which idle worker goes first when memory is short: the one whose model is thought to be asked for last.

That is the least recently used one, as a rule. The rule fails where more models are asked in turn than there is memory
for: each is evicted just before it is asked again, and everything that runs is a start. So a model that comes back
after an eviction is judged by the time since its use before that as well. If that is longer than any other has been
idle, it is the first to go, and those that are there stay: with room for 160 of 1,000 models asked in turn, 159 are
always there instead of none. One that was asked for again soon is, with its short interval, nobody's victim.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

W = TypeVar("W", bound=Hashable)


class Victim(NamedTuple, Generic[W]):
    """Who goes. Seconds: since it was used, and between its two last uses if it was evicted between them."""

    worker: W
    idle: float
    interval: float | None


class IdleWorkers(Generic[W]):
    """The idle workers of all models, the least recently used first. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._since: dict[W, float] = {}
        # Those of them that were found not to be evictable. With 10,000 workers that `minWorkers` keeps, passing by all
        # of them for each victim took 12 ms.
        self._aside: dict[W, float] = {}
        # Of those that came back after an eviction: what lay between their uses.
        self._interval: dict[W, float] = {}

    def __len__(self) -> int:
        return len(self._since) + len(self._aside)

    def __iter__(self) -> Iterator[W]:
        return chain(self._since, self._aside)

    def add(self, worker: W, now: float, interval: float | None = None) -> None:
        """The worker has become idle, whether it was known or not."""
        # It goes to the end: the order is that of their last use.
        self.discard(worker)
        self._since[worker] = now
        if interval is not None:
            self._interval[worker] = interval

    def discard(self, worker: W) -> None:
        """The worker is in use again, or has gone."""
        self._since.pop(worker, None)
        self._aside.pop(worker, None)
        if self._interval:
            self._interval.pop(worker, None)

    def since(self, worker: W) -> float:
        since = self._since.get(worker)
        return self._aside[worker] if since is None else since

    def expired(self, now: float, limit: Callable[[W], float]) -> list[W]:
        """Those that have been idle for longer than their limit."""
        return [worker for worker in self if now - self.since(worker) >= limit(worker)]

    def evictable(self, may_go: Callable[[W], bool]) -> Iterator[W]:
        """Those that may go, the least recently used first. The others are passed by from now on, until they have been
        used again or are recalled."""
        kept: list[W] = []
        try:
            for worker in self._since:
                if may_go(worker):
                    yield worker
                else:
                    kept.append(worker)
        finally:
            for worker in kept:
                self._aside[worker] = self._since.pop(worker)

    def recall(self) -> None:
        """What keeps a worker may have changed meanwhile."""
        if self._aside:
            everybody = [*self._aside.items(), *self._since.items()]
            everybody.sort(key=lambda item: item[1])
            self._since, self._aside = dict(everybody), {}

    def victim(self, now: float, may_go: Callable[[W], bool]) -> Victim[W] | None:
        """Who goes next, if there is anybody who may."""
        oldest = next(self.evictable(may_go), None)
        if oldest is None:
            return None
        age = now - self._since[oldest]
        returned = [worker for worker in self._interval if worker in self._since and may_go(worker)]
        worst = max(returned, key=self._interval.__getitem__, default=None)
        if worst is not None and self._interval[worst] >= age:
            oldest, age = worst, now - self._since[worst]
        return Victim(oldest, age, self._interval.get(oldest))
