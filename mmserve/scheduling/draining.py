"""Finishing what was accepted: for one model that goes, or for all when the server stops.

What is not finished in time is told so; nobody is left without an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from mmserve.errors import DeadlineExceeded
from mmserve.scheduling.queue import Batch, ModelQueue
from mmserve.supervision.worker import Worker


class Draining:
    """Looks at the dispatcher's `queues` and at the workers that have a batch. Timeouts in seconds."""

    def __init__(self, queues: Mapping[int, ModelQueue], held: Collection[Worker]) -> None:
        self._queues = queues
        self._held = held
        self._changed = asyncio.Event()

    def note(self) -> None:
        """Something was answered, or has gone."""
        self._changed.set()

    async def finish_all(self, timeout: float) -> bool:
        """Says False if that took too long."""
        if await self._until(lambda: not self._busy(), timeout):
            return True
        for queue in self._queues.values():
            _give_up(queue, f"The server stops, and this request was not answered within {timeout:g} seconds.")
        return False

    async def finish(self, queue: ModelQueue, timeout: float) -> None:
        """For a queue to which nothing is submitted any more."""

        def finished() -> bool:
            return not queue.waiting and not any(map(_unanswered, queue.pool.workers))

        if not await self._until(finished, timeout):
            _give_up(queue, f"The model was unregistered, and this was not answered within {timeout:g} seconds.")

    def _busy(self) -> bool:
        return any(map(_unanswered, self._held)) or any(queue.waiting for queue in self._queues.values())

    async def _until(self, condition: Callable[[], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _unanswered(worker: Worker) -> bool:
    """Whether somebody still waits for what a worker holds."""
    held: Batch | None = worker.held
    if held is None:
        return False
    if held.stream is not None and held.stream.unfinished:
        return True
    return not all(request.future.done() for request in held.requests)


def _give_up(queue: ModelQueue, message: str) -> None:
    held: list[Batch] = [worker.held for worker in queue.pool.workers if worker.held]
    for request in [*queue.waiting, *(request for batch in held for request in batch.requests)]:
        request.fail(DeadlineExceeded(message))
    queue.waiting.clear()
    for batch in held:
        if batch.stream is not None and batch.stream.unfinished:
            batch.stream.cut(message)
