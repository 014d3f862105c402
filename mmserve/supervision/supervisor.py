"""Starts and stops workers: the only part that does.

    dispatcher ── wake, free, hung ─────────► supervisor ──► lifecycle ── fork ──► template
        ▲                                      │  ▲  policy: how many       │
        │                                      │  │  room: in memory        ▼
        └──────── idle, lost, gone, failed ────┘  └── loaded, ended ──── worker

For every pool it compares what should run with what runs and mends the difference: whenever either has changed, and in
slow rounds for whatever an event has missed. Starting is never on a request's path: the request waits in its queue
while the worker comes up. Every start and every stop is an event with its reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from mmserve.errors import ModelFailed, ServingError
from mmserve.models.model import EffectiveSettings, Model
from mmserve.observability.events import EventLog
from mmserve.observability.stats import ModelStats
from mmserve.supervision import policy
from mmserve.supervision.environments import Environments
from mmserve.supervision.failure import EARLY
from mmserve.supervision.lifecycle import Ended, Lifecycle
from mmserve.supervision.limits import Limits
from mmserve.supervision.memory import MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.preparation import Preparation
from mmserve.supervision.rollover import Rollover
from mmserve.supervision.room import Room
from mmserve.supervision.rounds import Rounds
from mmserve.supervision.worker import Worker, WorkerState
from mmserve.supervision.worker_events import WorkerEvents

logger = logging.getLogger("mmserve.supervision")


class Supervisor:
    """`channel_capacity` is in bytes, `rollover_interval` in seconds."""

    def __init__(
        self,
        environments: Environments,
        preparation: Preparation,
        defaults: EffectiveSettings,
        *,
        log: EventLog,
        limits: Limits,
        memory_budget: int,
        channel_capacity: int,
        rollover_interval: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._environments = environments
        self._defaults = defaults
        self._log = log
        self.cpus = limits.cpus
        self.memory = MemoryAccount(limits, memory_budget)
        self.lifecycle = Lifecycle(
            environments, preparation, self, account=self.memory, log=log, channel_capacity=channel_capacity
        )
        self._room = Room(self.memory, evict=self._evict, admit=self._admit)
        self.rollover = Rollover(self.lifecycle, log, self.reconcile, self._room, interval=rollover_interval)
        self._events: WorkerEvents | None = None
        self._rounds = Rounds(self.lifecycle, self._room, self.memory, log, reconcile=self.reconcile, fail=self._fail)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def events(self) -> WorkerEvents:
        assert self._events is not None, "the dispatcher is connected before the first worker starts"
        return self._events

    def start(self, events: WorkerEvents) -> None:
        self._events = events
        self.lifecycle.answered, self.lifecycle.streamed = events.worker_answered, events.worker_streamed
        self._environments.start()
        self._tasks = [
            self._loop.create_task(self._rounds.run(lambda: self._environments.pids)),
            self._loop.create_task(self.rollover.run(lambda: self._rounds.pools)),
        ]

    def pool(self, model: Model, stats: ModelStats) -> Pool:
        return Pool(model, self._defaults, stats)

    def wake(self, pool: Pool, *, load: bool = False) -> None:
        """A request waits for the model; or with `load`, somebody wants it to be ready for one."""
        pool.wanted = pool.wanted or load
        self._rounds.adopt(pool)
        self.reconcile(pool)

    def rescale(self, pool: Pool, *, to_minimum: bool) -> None:
        """What was asked for the model has changed: brings its workers to what holds now.

        With `to_minimum` those that its traffic has started end too.
        """
        pool.refresh_settings()
        self._rounds.adopt(pool)
        if to_minimum:
            pool.wanted = False
            self._shrink(pool, len(pool.serving) - pool.settings.min_workers, "scaled")
        self.reconcile(pool)

    def reconcile(self, pool: Pool) -> None:
        """Mends the difference between what should run for a model and what does."""
        if pool.retired or self._stopping:
            return
        scaling = policy.scale(pool.sight(time.monotonic()), self.cpus)
        missing = scaling.workers - len(pool.serving)
        if missing > 0:
            self._grow(pool, missing, scaling.reason)
        elif missing < 0 and not (scaling.reason == "max_workers" and pool.outdated):
            # Workers with newer files come up beside those that they replace.
            self._shrink(pool, -missing, scaling.reason)

    def free(self, worker: Worker, now: float) -> bool:
        """The worker has finished its batch. Says whether it may be given another."""
        pool = worker.pool
        if worker.answered:
            pool.used()
            if not pool.failures.none:
                pool.failures.answered(worker.asked_at)
                self._rounds.mended(pool)
        if worker.ended:
            return False
        if worker.retiring:
            self.lifecycle.stop(worker)
            return False
        pool.idle.append(worker)
        worker.idle_since = now
        self._room.became_idle(worker, now)
        return True

    def hung(self, worker: Worker, seconds: float) -> None:
        """The worker has been answering one batch for too long."""
        self.lifecycle.dump(worker, "predict_timeout", f"no answer for {seconds:.1f} s")
        self.reconcile(worker.pool)

    async def restore(self, pools: Iterable[Pool]) -> None:
        """Starts what the models' settings ask for, those in their files included, without a request for them."""
        # First those that are known to be asked for: reading the files of the others takes its time.
        for pool in sorted(pools, key=lambda pool: not pool.settings.min_workers):
            if not pool.settings.min_workers and pool.model.content is None:
                try:
                    pool.model.content = await self.lifecycle.prepare(pool.model)
                except ServingError as error:
                    # As it would be told to its first caller, who finds out whether that still holds.
                    logger.warning("model %s: %s", pool.model.name, error)
                    continue
                pool.refresh_settings()
            if pool.settings.min_workers and not pool.retired:
                self._rounds.adopt(pool)
                self.reconcile(pool)

    def dismiss(self, pool: Pool) -> None:
        """Starts nothing more for it."""
        pool.retired = True
        self._rounds.dismiss(pool)
        self._room.leave(pool)
        self.rollover.forget(pool)

    async def retire(self, pool: Pool) -> None:
        """Ends all workers of a pool for good. Nobody waits for what one may still be busy with."""
        self.dismiss(pool)
        for worker in list(pool.workers):
            self.lifecycle.retire(worker, "unregistered")
            if worker.state is WorkerState.BUSY:
                self.lifecycle.abort(worker)
        while pool.workers:
            await pool.changed.wait()

    async def stop(self) -> None:
        """Ends everything. What workers hold by now is given up."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lifecycle.close()
        self.memory.close()
        await self._environments.stop()

    # What the lifecycle tells.

    def content_known(self, pool: Pool) -> None:
        """The files may ask for more than the one worker that the first request has started."""
        self.reconcile(pool)

    def not_started(self, worker: Worker, error: ServingError | None) -> None:
        if worker.is_trial:
            self.rollover.failed(worker, str(error or "not started"))
        elif error is not None:
            self._fail(worker.pool, error)
        elif not self._stopping:
            self.events.worker_gone(worker.pool)
        self._room.serve()

    def loaded(self, worker: Worker) -> None:
        pool, now = worker.pool, time.monotonic()
        pool.came_up(now)
        pool.failures.loaded()
        self._rounds.mended(pool)
        free = self.free(worker, now)
        self.rollover.loaded(worker)
        if free and worker.state is WorkerState.IDLE:
            self.events.worker_idle(worker)
        if pool.waiting:
            # Until now there was one worker to try the model with.
            self.reconcile(pool)
        self._room.review(now)
        pool.notify()

    def load_failed(self, worker: Worker, error: ServingError, traceback: str) -> None:
        if worker.is_trial:
            self.rollover.failed(worker, str(error), for_good=True)
        else:
            self._fail(worker.pool, error, traceback)

    def ended(self, worker: Worker, how: Ended) -> None:
        pool = worker.pool
        now = time.monotonic()
        self._room.idle.discard(worker)
        news = how.held is None or self.events.worker_lost(worker, how.held, how.exit, taken=how.taken)
        if worker.is_trial:
            self.rollover.failed(worker, f"The worker with the newer files {how.exit}.")
        elif not how.expected and not worker.answered and news and now - worker.forked_at < EARLY:
            self._died_early(pool, how)
        if not self._stopping:
            self._room.serve()
            if not pool.failures.blocks(now):
                self.reconcile(pool)
            self.events.worker_gone(pool)

    # What it does.

    def _grow(self, pool: Pool, missing: int, reason: str) -> None:
        now = time.monotonic()
        if pool.failure is not None:
            if pool.failures.blocks(now):
                return
            # One that has failed is tried with one worker.
            missing = 1 - sum(worker.coming_up for worker in pool.workers)
        for _ in range(missing):
            if not self._room.make(pool, now) or not self._start(pool, reason):
                return

    def _admit(self, pool: Pool) -> None:
        """There is room for one more worker of a pool that has waited for it; it may not be needed any more."""
        now = time.monotonic()
        if pool.retired or self._stopping or self.rollover.go_on(pool, has_room=True) or pool.failures.blocks(now):
            return
        scaling = policy.scale(pool.sight(now), self.cpus)
        missing = scaling.workers - len(pool.serving)
        if missing > 0 and self._start(pool, scaling.reason) and missing > 1:
            self.reconcile(pool)

    def _start(self, pool: Pool, reason: str) -> bool:
        try:
            # As those that run, if any do: newer files are for the rollover to try out.
            self.lifecycle.start(pool, reason, pool.model.content if pool.ready else None)
        except OSError as error:
            self._fail(pool, ModelFailed(type(error).__name__, f"no channel for a worker: {error.strerror}"))
            return False
        return True

    def _shrink(self, pool: Pool, surplus: int, reason: str) -> None:
        """Idle ones first, and of these the least recently used."""
        order = [*pool.idle, *(worker for worker in pool.serving if worker not in pool.idle)]
        for worker in order[: max(0, surplus)]:
            self.lifecycle.retire(worker, reason)

    def _evict(self, worker: Worker, reason: str) -> None:
        pool = worker.pool
        pool.stats.evicted()
        pool.evicted_after = worker.idle_since
        self._log.add("evicted", pool.model.name, reason, pid=worker.pid, memory=worker.memory.held)
        self._room.idle.discard(worker)
        self.lifecycle.retire(worker, "evicted")

    def _fail(self, pool: Pool, error: ServingError, traceback: str = "") -> None:
        """Takes note of a failed start. Its requests are told; unless others of the model's workers are there."""
        if pool.retired:
            return
        failure = pool.failures.note(error, traceback, time.monotonic())
        self._log.add("model_failed", pool.model.name, str(error), level=logging.ERROR, attempts=failure.attempts)
        self._rounds.failing.add(pool)
        self._room.leave(pool)
        pool.wanted = False
        pool.notify()
        if not pool.serving:
            self.events.pool_failed(pool, failure)

    def _died_early(self, pool: Pool, how: Ended) -> None:
        """Once or twice may have been anything; a model that does so again and again is at fault."""
        if pool.failures.died_early(with_request=how.held is not None and how.taken):
            message = f"The worker {how.exit} before it had answered anything, as did those before it."
            self._fail(pool, ModelFailed("WorkerDiedException", message))
