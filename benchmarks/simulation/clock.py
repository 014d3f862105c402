"""Virtual time: what was planned happens in its order, however long it would have to be waited for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds. As in an event loop, what is planned for now happens a little later.
_SOON = 1e-6


class Clock:
    """Times in seconds since the simulation began."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._planned, (max(when, self.now + _SOON), next(self._order), call, args))

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now + seconds, call, *args)

    def play(self, events: Iterator[tuple[float, T]], act: Callable[[T], None]) -> None:
        """Calls `act` for each of these, which come with their times, in order."""
        found = next(events, None)
        if found is not None:
            self.at(found[0], self._play, events, act, found[1])

    def _play(self, events: Iterator[tuple[float, T]], act: Callable[[T], None], event: T) -> None:
        act(event)
        self.play(events, act)

    def run(self, until: float, after_each: Callable[[float], None]) -> None:
        planned = self._planned
        while planned and planned[0][0] <= until:
            self.now, _, call, args = heapq.heappop(planned)
            self.steps += 1
            call(*args)
            after_each(self.now)
        self.now = until
