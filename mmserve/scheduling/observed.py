"""A model's queue and workers as metrics look at them."""

from __future__ import annotations

from collections.abc import Mapping

from mmserve.observability.stats import ModelStats
from mmserve.scheduling.queue import ModelQueue


class ObservedQueue:
    """Made for one look: that needs no place in ten thousand queues."""

    __slots__ = ("_queue",)

    def __init__(self, queue: ModelQueue) -> None:
        self._queue = queue

    @property
    def name(self) -> str:
        return self._queue.model.name

    @property
    def stats(self) -> ModelStats:
        return self._queue.pool.stats

    @stats.setter
    def stats(self, stats: ModelStats) -> None:
        self._queue.pool.stats = stats

    @property
    def requests(self) -> int:
        return self._queue.requests

    @property
    def waiting(self) -> int:
        return len(self._queue.waiting)

    @property
    def workers(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for worker in self._queue.pool.workers:
            state = worker.state.value
            found[state] = found.get(state, 0) + 1
        return found

    @property
    def memory(self) -> int:
        """Bytes."""
        workers = self._queue.pool.workers
        return sum([worker.memory.held for worker in workers]) if workers else 0
