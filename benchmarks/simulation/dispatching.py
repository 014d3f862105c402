"""Gives simulated requests to simulated workers, as dispatcher.py does with real ones. The turns are share.py's."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.simulation.checker import Checker
from benchmarks.simulation.clock import Clock
from benchmarks.simulation.population import Profile
from benchmarks.simulation.stand_ins import ModelQueue, Request, SimulatedPool, SimulatedWorker
from benchmarks.simulation.supervising import Supervisor
from benchmarks.simulation.traffic import Call
from mmserve.scheduling.share import CpuShare
from mmserve.supervision.policy import LONG_QUEUE
from mmserve.supervision.worker import WorkerState

# Seconds.
_TICK = 0.1
# A request whose workers were killed so many times is not given to another.
_MOST_KILLS = 3


class Dispatcher:
    def __init__(
        self,
        clock: Clock,
        checker: Checker,
        chance: random.Random,
        supervisor: Supervisor,
        profiles: Sequence[Profile],
        *,
        cpus: float,
        share: CpuShare[ModelQueue, SimulatedWorker],
    ) -> None:
        self._clock = clock
        self._checker = checker
        self._chance = chance
        self._supervisor = supervisor
        supervisor.dispatcher = self
        self._cpus = cpus
        self._share = share
        self.queues = [ModelQueue(profile) for profile in profiles]
        # Those in which something has waited when last looked at.
        self._waiting: dict[ModelQueue, None] = {}
        self._held = 0
        self._ticking = False
        self._line_timer = False
        # CPUs that the running batches would use if there were enough of them.
        self._demand = 0.0
        # No more requests come in.
        self.closed = False

    def submit(self, call: Call) -> None:
        if self.closed:
            return
        queue = self.queues[call.model]
        pool, now = queue.pool, self._clock.now
        due = False
        for _ in range(call.requests):
            queue.requests += 1
            waiting = len(queue.waiting)
            if pool.failure is not None and pool.failures.blocks(now) and not pool.serving:
                self._checker.refused(queue.profile, "failed")
                continue
            if waiting >= pool.settings.job_queue_size:
                self._checker.refused(queue.profile, "full")
                continue
            self._checker.arrived(queue.profile, queue.requests)
            queue.waiting.append(Request(queue.requests))
            if not pool.workers:
                self._supervisor.reconcile(pool)
            elif pool.idle:
                due = True
            elif waiting == LONG_QUEUE * pool.settings.batch_size:
                self._supervisor.reconcile(pool)
        self._waiting[queue] = None
        if due:
            self._dispatch(queue)
        if not self._ticking:
            self._ticking = True
            self._clock.after(_TICK, self._tick)

    def worker_idle(self, worker: SimulatedWorker) -> None:
        self._dispatch(self._queue(worker.pool))
        self._dispatch_line()

    def worker_lost(self, worker: SimulatedWorker, held: list[Request]) -> None:
        queue, now = self._queue(worker.pool), self._clock.now
        self._held -= 1
        self._demand -= queue.profile.cpu_share
        self._share.ended(worker, queue, now - worker.sent_at)
        for request in held:
            request.deaths += 1
        again = [request for request in held if request.deaths < _MOST_KILLS]
        self._checker.given_back(queue.profile, [request.number for request in again])
        queue.waiting.extendleft(reversed(again))
        self._waiting[queue] = None
        self._dispatch(queue)
        self._dispatch_line()

    def worker_gone(self, pool: SimulatedPool) -> None:
        if pool.waiting and not pool.serving:
            if pool.failures.blocks(self._clock.now):
                self.pool_failed(pool)
            else:
                self._supervisor.reconcile(pool)

    def pool_failed(self, pool: SimulatedPool) -> None:
        queue = self._queue(pool)
        for _ in queue.waiting:
            self._checker.refused(queue.profile, "failed", waiting=True)
        queue.waiting.clear()

    def _queue(self, pool: SimulatedPool) -> ModelQueue:
        return self.queues[pool.profile.index]

    def _answered(self, worker: SimulatedWorker, held: list[Request], seconds: float, cpu_seconds: float) -> None:
        if worker.state is WorkerState.DEAD:
            return
        queue, now = self._queue(worker.pool), self._clock.now
        self._held -= 1
        self._demand -= queue.profile.cpu_share
        worker.vacate(len(held), seconds)
        worker.cpu_used += cpu_seconds
        worker.pool.note_service(now - worker.sent_at)
        self._checker.answered(worker.id)
        self._share.ended(worker, queue, seconds)
        if self._supervisor.free(worker, now):
            self._dispatch(queue)
        if self._share.line:
            self._dispatch_line()

    def _dispatch_line(self) -> None:
        while (queue := self._share.next(self._clock.now)) is not None:
            self._dispatch(queue, admitted=True)
        self._watch_line()

    def _watch_line(self) -> None:
        due = self._share.due()
        if due is not None and not self._line_timer:
            self._line_timer = True
            self._clock.at(due, self._line_is_due)

    def _line_is_due(self) -> None:
        self._line_timer = False
        self._dispatch_line()

    def _dispatch(self, queue: ModelQueue, *, admitted: bool = False) -> None:
        idle, now = queue.pool.idle, self._clock.now
        while idle and queue.waiting:
            if not admitted and not self._share.has_room(queue, now) and not queue.pool.is_waiting(now):
                self._share.line_up(queue)
                self._watch_line()
                return
            admitted = False
            worker = idle.pop()
            assert isinstance(worker, SimulatedWorker)
            self._send(worker, queue, queue.take())

    def _send(self, worker: SimulatedWorker, queue: ModelQueue, taken: list[Request]) -> None:
        profile, now = queue.profile, self._clock.now
        worker.occupy(taken, now)
        counts = not queue.pool.waits
        if counts:
            self._share.started(worker, queue, now)
        self._checker.sent(worker.id, [request.number for request in taken], counts=counts)
        self._held += 1
        self._demand += profile.cpu_share
        # More than there are CPUs for, and all of them take longer.
        stretch = max(1.0, self._demand / self._cpus)
        self._checker.stretched(stretch)
        service = profile.service * self._chance.uniform(0.8, 1.2)
        cpu_seconds = service * profile.cpu_share * stretch
        seconds = service * (1 - profile.cpu_share) + cpu_seconds
        self._clock.after(seconds, self._answered, worker, taken, seconds, cpu_seconds)

    def _tick(self) -> None:
        self._ticking = False
        for queue in list(self._waiting):
            if not queue.waiting:
                del self._waiting[queue]
            elif not queue.pool.idle:
                self._supervisor.reconcile(queue.pool)
        if self._held or self._waiting:
            self._ticking = True
            self._clock.after(_TICK, self._tick)
