"""What workers hold, and whether one more fits.

    held by a worker = resident now - resident right after its fork   (cheap: 10 us)
                     + pages of the template's that it has copied     (dear: 2.6 ms, so measured now and then)

The second part is alike in all workers, so what was measured of some is believed of the others. A worker that was not
measured yet is thought to hold what its model's last one did, or what workers hold on average; but where that may be
too little, workers of models that were never loaded come up one by one. Nothing is guessed from the size of files. The
budget is for all that this server runs, and besides, the host is left some memory.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mmserve.supervision import processes
from mmserve.supervision.limits import Limits
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Worker, WorkerState

MIB = 1024 * 1024
# What is left to the host, as a part of the memory that may be used.
_RESERVE = 0.05
# Bytes that a worker copies of the template's, until that was measured: scikit-learn's own predict and the interpreter.
_USUAL_COPIED = 5 * MIB
# Bytes that a template is resident with, until one was looked at: scikit-learn and what it imports.
_USUAL_TEMPLATE = 100 * MIB
# Bytes that a worker of a model that was never loaded may turn out to hold, until others were seen. And how much of the
# largest counts after one more was: after fifty small ones, nobody expects a large one.
_LARGE, _FADING = 64 * MIB, 0.95
# Looked at in one second: 2 ms and 2.6 ms, together half a per cent of a core, however many workers there are.
_LOOKS, _MEASUREMENTS = 200, 1
# How much the latest measurement counts for those that were not measured.
_LATEST = 0.1
_READY = (WorkerState.IDLE, WorkerState.BUSY)
_ENDING = (WorkerState.STOPPING, WorkerState.DEAD)


class Look(NamedTuple):
    """One worker that is looked at, and what was seen."""

    worker: Worker
    pid: int
    measure: bool
    resident: int | None = None
    private: int | None = None


class MemoryAccount:
    """Bytes. `budget` is for the front, the templates and all workers together."""

    def __init__(self, limits: Limits, budget: int) -> None:
        self.budget = budget
        self._limits = limits
        self._reserve = int(limits.memory * _RESERVE)
        self._workers = 0
        self._leaving = 0
        self._template = _USUAL_TEMPLATE
        self._base = (processes.own(os.getpid()) or 0) + self._template
        self._copied = _USUAL_COPIED
        # What a worker holds when it has loaded: on average of late, and at most.
        self._usual = _USUAL_COPIED
        self._largest = _LARGE
        self._rotation: deque[Worker] = deque()
        # Those that have not loaded yet; and of these, those of models that were never loaded.
        self.coming_up: set[Worker] = set()
        self._unknown: set[Worker] = set()
        # Memory that the host had when it was last asked, less what was started since.
        self._host_room = limits.available_memory() - self._reserve
        # Of its own: in threads that others use as well, a store that hangs would keep it waiting.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")

    @property
    def used(self) -> int:
        return self._base + self._workers

    def estimate(self, pool: Pool) -> int:
        """What one more worker of a model will hold."""
        return max(pool.worker_memory or self._usual, pool.settings.required_memory)

    def fits(self, needed: int) -> bool:
        """Whether so much can be taken now."""
        return self.used + needed <= self.budget and needed <= self._host_room

    def admits(self, pool: Pool) -> bool:
        """Whether one more worker of a model may be started now."""
        if not self.fits(self.estimate(pool)):
            return False
        # A burst of models that were never loaded was admitted on a guess, and exceeded the budget by half.
        unknown = len(self._unknown)
        return pool.worker_memory is not None or not unknown or self.fits((unknown + 1) * self._largest)

    def shortage(self, needed: int) -> int:
        """Bytes that have to be freed, beyond what is about to be, before so much can be taken; none if negative."""
        return max(self.used + needed - self.budget, needed - self._host_room) - self._leaving

    def add(self, worker: Worker) -> None:
        """The worker is being started."""
        self._set(worker, self.estimate(worker.pool))
        self._host_room -= worker.memory.held
        self._rotation.append(worker)
        self.coming_up.add(worker)
        if worker.pool.worker_memory is None:
            self._unknown.add(worker)

    def expect(self, worker: Worker) -> bool:
        """Keeps what its model's files say that the worker needs, now that they are known. Says whether there is so
        much."""
        more = max(0, worker.pool.settings.required_memory - worker.memory.held)
        if more and not self.fits(more):
            return False
        self._set(worker, worker.memory.held + more)
        self._host_room -= more
        return True

    def forked(self, worker: Worker) -> None:
        worker.memory.resident_at_fork = processes.resident(worker.pid) or 0

    def loaded(self, worker: Worker) -> None:
        self._loaded(worker, processes.resident(worker.pid))

    def leaving(self, worker: Worker) -> None:
        """The worker has been told to end."""
        self._came_up(worker)
        if worker.state is not WorkerState.DEAD and not worker.leaving:
            worker.leaving = True
            self._leaving += worker.memory.held

    def remove(self, worker: Worker) -> None:
        """The worker has ended."""
        self._came_up(worker)
        if worker.leaving:
            self._leaving -= worker.memory.held
        self._workers -= worker.memory.held
        self._host_room += worker.memory.held
        worker.memory.held = 0

    async def look(self, templates: Sequence[int]) -> list[Worker]:
        """Looks at some of the workers, once a second, in a thread. Returns those that were seen.

        `templates` are the pids of theirs, one of each environment, 0 for one that is not ready.
        """
        loop = asyncio.get_running_loop()
        front, resident, seen = await loop.run_in_executor(self._thread, _look, templates, self._next())
        ready = [size for size in resident if size]
        if ready:
            self._template = max(ready)
        # One that is not ready comes up, and will hold what others do.
        self._base = front + sum(ready) + (len(resident) - len(ready)) * self._template
        self._host_room = self._limits.available_memory() - self._reserve
        # One that is ending gives back what it holds, which says nothing of the next.
        alive = [look for look in seen if look.worker.state not in _ENDING and look.resident]
        for look in alive:
            self._seen(look)
        return [look.worker for look in alive]

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _came_up(self, worker: Worker) -> None:
        self.coming_up.discard(worker)
        self._unknown.discard(worker)

    def _loaded(self, worker: Worker, resident: int | None) -> None:
        self._came_up(worker)
        if not resident:
            return
        self._seen(Look(worker, worker.pid, False, resident))
        held = worker.memory.held
        self._usual += int(_LATEST * (held - self._usual))
        self._largest = max(held, int(_FADING * self._largest))

    def _next(self) -> list[Look]:
        """Every worker in turn; measured are those first that have answered most since they were."""
        turn: list[Worker] = []
        for _ in range(min(_LOOKS, len(self._rotation))):
            worker = self._rotation.popleft()
            if worker.state is WorkerState.DEAD:
                continue
            self._rotation.append(worker)
            if worker.pid:
                turn.append(worker)
        changed = [worker for worker in turn if worker.answered > max(0, worker.memory.measured_after)]
        changed.sort(key=lambda worker: (worker.memory.copied is not None, -worker.answered))
        measured = set(changed[:_MEASUREMENTS])
        for worker in measured:
            worker.memory.measured_after = worker.answered
        return [Look(worker, worker.pid, worker in measured) for worker in turn]

    def _seen(self, look: Look) -> None:
        worker, memory = look.worker, look.worker.memory
        assert look.resident is not None
        grown = max(0, look.resident - memory.resident_at_fork)
        if look.private is not None:
            memory.copied = max(0, look.private - grown)
            self._copied += int(_LATEST * (memory.copied - self._copied))
        held = grown + (self._copied if memory.copied is None else memory.copied)
        if worker.state in _READY:
            memory.growth.seen(held, worker.answered)
            worker.pool.worker_memory = held
        else:
            # It has yet to take what is kept for it.
            held = max(held, memory.held)
        self._set(worker, held)

    def _set(self, worker: Worker, held: int) -> None:
        change = held - worker.memory.held
        worker.memory.held = held
        self._workers += change
        if worker.leaving:
            self._leaving += change


def _look(templates: Sequence[int], looks: Sequence[Look]) -> tuple[int, list[int], list[Look]]:
    """Blocks. What the front and the templates hold, and what was seen of the workers."""
    front = processes.own(os.getpid()) or 0
    return (
        front,
        [(processes.resident(template) or 0) if template else 0 for template in templates],
        [
            look._replace(
                resident=processes.resident(look.pid), private=processes.private(look.pid) if look.measure else None
            )
            for look in looks
        ],
    )
