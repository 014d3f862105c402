"""Who has waited for too long: requests whose deadline has passed, queues that need more workers, workers that will not
come back.

Looked at ten times a second, and only while there is anything to look at: a timer for each request would cost the hot
path more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping

from mmserve.errors import PredictTimeout
from mmserve.scheduling.queue import ModelQueue, fail_late
from mmserve.supervision.supervisor import Supervisor
from mmserve.supervision.worker import Worker, WorkerState

logger = logging.getLogger("mmserve.scheduling")

# Seconds.
_TICK = 0.1


class Lateness:
    """Looks at the dispatcher's `queues` and at the workers that have a batch. `looked` is told of every look."""

    def __init__(
        self,
        queues: Mapping[int, ModelQueue],
        held: Collection[Worker],
        supervisor: Supervisor,
        looked: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues = queues
        self._held = held
        self._supervisor = supervisor
        self._looked = looked
        self.resting = True

    def watch(self) -> None:
        """There is something to look at."""
        self.resting = False
        self._loop.call_later(_TICK, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        waiting = False
        for queue in list(self._queues.values()):
            if queue.waiting:
                waiting = True
                self._look_at_queue(queue, now)
        for worker in list(self._held):
            self._look_at_worker(worker, now)
        self.resting = True
        if waiting or self._held:
            self.watch()
        self._looked()

    def _look_at_queue(self, queue: ModelQueue, now: float) -> None:
        if expired := queue.expire(now):
            logger.warning("model %s: %d waiting requests were not answered in time", queue.model.name, expired)
        if queue.waiting and not queue.pool.idle:
            self._supervisor.reconcile(queue.pool)

    def _look_at_worker(self, worker: Worker, now: float) -> None:
        requests, name = worker.held.requests, worker.pool.model.name
        if expired := sum(fail_late(request) for request in requests if request.deadline <= now):
            logger.warning("model %s: worker %d has not answered %d requests in time", name, worker.pid, expired)
        limit, stream = worker.pool.settings.predict_timeout, worker.held.stream
        if stream is not None and stream.is_full:
            return
        seconds = now - (worker.sent_at if stream is None else stream.moved_at)
        if seconds < limit or worker.state is WorkerState.STOPPING:
            return
        held = requests[worker.held.answered :]
        for request in held:
            # Of several, all but one may be innocent: they are tried once more, one by one, when the worker has ended.
            if len(held) == 1 or request.deaths:
                message = f"The model has not answered within {limit:g} seconds (predict_timeout)."
                request.fail(PredictTimeout(message))
        self._supervisor.hung(worker, seconds)
