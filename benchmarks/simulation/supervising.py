"""Starts and stops simulated workers, as supervisor.py, lifecycle.py and rounds.py do with real ones.

What decides is the server's own: policy.py, room.py, eviction.py, memory.py, failure.py, and the books of pool.py. The
supervisor's rounds over all models, which are for what an event has missed, are left out: here, events have to do.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.simulation.checker import Checker
from benchmarks.simulation.clock import Clock
from benchmarks.simulation.stand_ins import Request, SimulatedMemory, SimulatedPool, SimulatedWorker
from mmserve.errors import ModelFailed, NoMemory, ServingError
from mmserve.supervision import policy
from mmserve.supervision.eviction import IdleWorkers
from mmserve.supervision.failure import EARLY
from mmserve.supervision.pool import Pool
from mmserve.supervision.room import Room
from mmserve.supervision.worker import Worker, WorkerState

# Seconds between two rounds.
_ROUND = 1.0
# A process ends within this, in seconds.
_END = 0.02

Scale = Callable[[policy.Sight, float], policy.Scaling]


class Dispatching(Protocol):
    """Who is told what became of workers."""

    def worker_idle(self, worker: SimulatedWorker) -> None: ...

    def worker_lost(self, worker: SimulatedWorker, held: list[Request]) -> None: ...

    def worker_gone(self, pool: SimulatedPool) -> None: ...

    def pool_failed(self, pool: SimulatedPool) -> None: ...


@dataclass(slots=True)
class Counts:
    """What has happened."""

    starts: int = 0
    idle_stops: int = 0
    evictions: int = 0
    deaths: int = 0


class Supervisor:
    """`scale`, `idle` and `memory` are what it decides by."""

    def __init__(
        self,
        clock: Clock,
        checker: Checker,
        chance: random.Random,
        *,
        cpus: float,
        memory: SimulatedMemory,
        scale: Scale,
        idle: IdleWorkers[Worker],
    ) -> None:
        self._clock = clock
        self._checker = checker
        self._chance = chance
        self._cpus = cpus
        self._scale = scale
        self._memory = memory
        self._room = Room(self._memory, evict=self._evict, admit=self._admit)
        self._room.idle = idle
        # In an order that is the same with the same seed, which a set's is not.
        self._failing: dict[SimulatedPool, None] = {}
        self._ids = itertools.count(1)
        self.workers: dict[int, SimulatedWorker] = {}
        self.counts = Counts()
        self.dispatcher: Dispatching
        clock.after(_ROUND, self._go_round)

    def reconcile(self, pool: SimulatedPool) -> None:
        scaling = self._scale(pool.sight(self._clock.now), self._cpus)
        missing = scaling.workers - len(pool.serving)
        if missing > 0:
            self._grow(pool, missing, scaling.reason)
        elif missing < 0:
            self._shrink(pool, -missing, scaling.reason)

    def free(self, worker: SimulatedWorker, now: float) -> bool:
        """The worker has finished its batch. Says whether it may be given another."""
        pool = worker.pool
        if worker.answered:
            pool.used()
            if not pool.failures.none:
                pool.failures.answered(worker.asked_at)
                self._failing.pop(pool, None)
        if worker.retiring:
            self._stop(worker)
            return False
        pool.idle.append(worker)
        worker.idle_since = now
        self._room.became_idle(worker, now)
        return True

    def kill(self, worker: SimulatedWorker) -> None:
        """Somebody kills it."""
        self.counts.deaths += 1
        self._end(worker, expected=worker.state is WorkerState.STOPPING)

    def _grow(self, pool: SimulatedPool, missing: int, reason: str) -> None:
        now = self._clock.now
        if pool.failure is not None:
            if pool.failures.blocks(now):
                return
            missing = 1 - sum(worker.coming_up for worker in pool.workers)
        for _ in range(missing):
            if not self._room.make(pool, now):
                return
            self._start(pool, reason)

    def _admit(self, pool: Pool) -> None:
        assert isinstance(pool, SimulatedPool)
        now = self._clock.now
        if pool.failures.blocks(now):
            return
        scaling = self._scale(pool.sight(now), self._cpus)
        missing = scaling.workers - len(pool.serving)
        if missing > 0:
            self._start(pool, scaling.reason)
            if missing > 1:
                self.reconcile(pool)

    def _start(self, pool: SimulatedPool, reason: str) -> None:
        worker = SimulatedWorker(next(self._ids), pool, reason, self._clock.now)
        pool.workers.add(worker)
        self.workers[worker.id] = worker
        self._memory.add(worker)
        self.counts.starts += 1
        self._checker.started(pool.profile, worker.id, reason)
        worker.state = WorkerState.LOADING
        self._clock.after(pool.profile.start * self._chance.uniform(0.8, 1.5), self._loaded, worker)

    def _loaded(self, worker: SimulatedWorker) -> None:
        if worker.state is not WorkerState.LOADING:
            # It was told to end meanwhile.
            return
        pool, now = worker.pool, self._clock.now
        worker.loaded()
        self._memory.loaded(worker)
        self._checker.came_up(worker.id)
        pool.note_start(now - worker.asked_at)
        pool.came_up(now)
        pool.failures.loaded()
        if self.free(worker, now):
            self.dispatcher.worker_idle(worker)
        if pool.waiting:
            self.reconcile(pool)
        self._room.review(now)

    def _shrink(self, pool: SimulatedPool, surplus: int, reason: str) -> None:
        order = [*pool.idle, *(worker for worker in pool.serving if worker not in pool.idle)]
        for worker in order[: max(0, surplus)]:
            self._retire(worker, reason)

    def _evict(self, worker: Worker, reason: str) -> None:
        self.counts.evictions += 1
        worker.pool.evicted_after = worker.idle_since
        self._room.idle.discard(worker)
        self._retire(worker, "evicted")

    def _retire(self, worker: Worker, reason: str) -> None:
        assert isinstance(worker, SimulatedWorker)
        worker.retiring = True
        self.counts.idle_stops += reason == "idle"
        self._checker.stopped(worker.id, reason)
        if worker.state is WorkerState.IDLE:
            worker.pool.idle.remove(worker)
        if worker.state is not WorkerState.BUSY:
            self._stop(worker)

    def _stop(self, worker: SimulatedWorker) -> None:
        worker.stop()
        self._memory.leaving(worker)
        self._clock.after(self._chance.uniform(_END / 4, _END), self._ended, worker)

    def _ended(self, worker: SimulatedWorker) -> None:
        if worker.state is not WorkerState.DEAD:
            self._end(worker, expected=True)

    def _end(self, worker: SimulatedWorker, *, expected: bool) -> None:
        pool, held = worker.pool, worker.held
        worker.die()
        del self.workers[worker.id]
        pool.workers.discard(worker)
        if worker in pool.idle:
            pool.idle.remove(worker)
        self._memory.remove(worker)
        self._room.idle.discard(worker)
        self._checker.ended(worker.id)
        if held is not None:
            self.dispatcher.worker_lost(worker, held)
        early = not expected and not worker.answered and self._clock.now - worker.asked_at < EARLY
        if early and pool.failures.died_early(with_request=held is not None):
            self._fail(pool, ModelFailed("WorkerDiedException", "killed"))
        self._room.serve()
        if not pool.failures.blocks(self._clock.now):
            self.reconcile(pool)
        self.dispatcher.worker_gone(pool)

    def _fail(self, pool: SimulatedPool, error: ServingError) -> None:
        pool.failures.note(error, "", self._clock.now)
        self._failing[pool] = None
        self._room.leave(pool)
        if not pool.serving:
            self.dispatcher.pool_failed(pool)

    def _go_round(self) -> None:
        now = self._clock.now
        expired = (worker.pool for worker in self._room.idle.expired(now, _idle_limit))
        for pool in dict.fromkeys([*expired, *self._failing]):
            assert isinstance(pool, SimulatedPool)
            self.reconcile(pool)
        for short in self._room.impatient(now):
            assert isinstance(short, SimulatedPool)
            if len(short.serving) < max(1, short.settings.min_workers):
                self._fail(short, NoMemory(self._room.shortage_of(short)))
        self._room.review(now)
        self._clock.after(_ROUND, self._go_round)


def _idle_limit(worker: Worker) -> float:
    """Seconds that a worker may be idle; one that the minimum keeps, for ever."""
    settings = worker.pool.settings
    return settings.max_idle_time if len(worker.pool.workers) > settings.min_workers else math.inf
