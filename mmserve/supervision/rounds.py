"""What no event tells, looked at once a second: who has been idle, loading or waiting for too long, what workers hold,
and a few models in turn, in case that an event was missed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable

from mmserve.errors import ModelFailed, NoMemory, ServingError
from mmserve.observability.events import EventLog
from mmserve.supervision.lifecycle import Lifecycle
from mmserve.supervision.memory import MIB, MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.room import Room
from mmserve.supervision.worker import Worker, WorkerState

logger = logging.getLogger("mmserve.supervision")

# Seconds between two rounds.
_ROUND = 1.0
# Between two looks whether there is another template, of which nothing is known.
_SOON = 0.1
# Pools that are reconciled in each although nothing is known to have happened to them.
_POOLS_IN_TURN = 100


class Rounds:
    """`reconcile` and `fail` are the supervisor's."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        room: Room,
        account: MemoryAccount,
        log: EventLog,
        *,
        reconcile: Callable[[Pool], None],
        fail: Callable[[Pool, ServingError], None],
    ) -> None:
        self._lifecycle = lifecycle
        self._room = room
        self._account = account
        self._log = log
        self._reconcile = reconcile
        self._fail = fail
        # Those that somebody has asked something of.
        self._pools: deque[Pool] = deque()
        # Those that were tried and have failed, and may have to be tried again without a request for it.
        self.failing: set[Pool] = set()
        # Those of which it was said that their `max_memory` is too little, and how much that is.
        self._told: dict[Pool, int] = {}

    @property
    def pools(self) -> list[Pool]:
        return list(self._pools)

    def adopt(self, pool: Pool) -> None:
        if not pool.adopted and not pool.retired:
            pool.adopted = True
            self._pools.append(pool)

    def mended(self, pool: Pool) -> None:
        """Something has gone well: it need not be tried again, unless there is a failure still."""
        if pool.failure is None:
            self.failing.discard(pool)

    def dismiss(self, pool: Pool) -> None:
        self.failing.discard(pool)
        self._told.pop(pool, None)
        if pool.adopted:
            pool.adopted = False
            self._pools.remove(pool)

    async def run(self, templates: Callable[[], list[int]]) -> None:
        """Goes round for as long as the server runs. `templates` gives the templates' pids, 0 for one not ready."""
        while True:
            try:
                known = templates()
                seen = await self._account.look(known)
                self._go(time.monotonic(), seen)
            except Exception:  # whatever it was, the next round is due
                logger.exception("the supervisor's round has failed")
            for _ in range(round(_ROUND / _SOON)):
                await asyncio.sleep(_SOON)
                if not {0, *known}.issuperset(templates()):
                    break

    def _go(self, now: float, seen: list[Worker]) -> None:
        for worker in self._lifecycle.workers:
            if worker.state is WorkerState.IDLE and worker.channel.trimmable and worker.channel.idle:
                worker.channel.trim()
        for pool in {worker.pool for worker in self._room.idle.expired(now, _idle_limit)} | self.failing:
            self._reconcile(pool)
        for worker in list(self._lifecycle.loading):
            self._check_loading(worker, now)
        for worker in seen:
            self._check_memory(worker)
        for pool in self._room.impatient(now):
            if len(pool.serving) < max(1, pool.settings.min_workers):
                self._fail(pool, NoMemory(self._room.shortage_of(pool)))
        self._room.review(now)
        for _ in range(min(len(self._pools), _POOLS_IN_TURN)):
            self._pools.rotate(-1)
            self._reconcile(self._pools[-1])

    def _check_loading(self, worker: Worker, now: float) -> None:
        limit = worker.pool.settings.model_loading_timeout
        if now - worker.forked_at < limit:
            return
        trial, message = worker.is_trial, f"The model did not load within {limit:g} seconds (model_loading_timeout)."
        self._lifecycle.loading.discard(worker)
        self._lifecycle.dump(worker, "model_loading_timeout", message)
        if not trial:
            # The rollover is told of its own when that has ended.
            self._fail(worker.pool, ModelFailed("ModelLoadingTimeoutException", message))

    def _check_memory(self, worker: Worker) -> None:
        """Replaces a worker that has grown too large, between two of its requests."""
        if worker.retiring or worker.state not in (WorkerState.IDLE, WorkerState.BUSY):
            return
        pool, growth, held = worker.pool, worker.memory.growth, worker.memory.held
        limit = pool.settings.max_memory
        if limit is not None and growth.first > limit:
            # Another would hold as much: it would be replaced as well, once a second for ever.
            self._tell_too_low(pool, limit, growth.first)
            limit = None
        if limit is not None and held > limit and worker.answered:
            reason = "max_memory"
        elif growth.is_leak:
            reason = "leak"
        else:
            return
        self._log.add("worker_too_large", pool.model.name, reason, level=logging.WARNING, memory=held)
        self._lifecycle.retire(worker, reason)
        self._reconcile(pool)

    def _tell_too_low(self, pool: Pool, limit: int, held: int) -> None:
        if self._told.get(pool) != limit:
            self._told[pool] = limit
            reason = (
                f"max_memory_mb is {limit / MIB:.0f}, and a worker holds {held / MIB:.0f} MiB with its model alone: it "
                "is not replaced for that"
            )
            self._log.add("worker_too_large", pool.model.name, reason, level=logging.WARNING, memory=held)


def _idle_limit(worker: Worker) -> float:
    """Seconds that a worker may be idle; one that the minimum keeps, for ever."""
    settings = worker.pool.settings
    return settings.max_idle_time if len(worker.pool.workers) > settings.min_workers else math.inf
