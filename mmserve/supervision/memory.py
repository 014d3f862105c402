"""What workers hold, and whether one more fits.

    held by a worker = resident now - resident right after its fork   (cheap: 10 us)
                     + pages of the template's that it has copied     (dear: 2.6 ms, so measured now and then)

The second part is alike in all workers, so what was measured of some is believed of the others. A worker that was not
measured yet is thought to hold what its model's last one did, or what workers hold on average. Nothing is guessed from
the size of files. The budget is for all that this server runs, and besides, the host is left some memory.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
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
# Looked at in one second: 2 ms and 2.6 ms, together half a per cent of a core, however many workers there are.
_LOOKS, _MEASUREMENTS = 200, 1
# How much the latest measurement counts for those that were not measured.
_LATEST = 0.1
# A worker leaks that is seen to grow so many times in a row, by this many bytes each time, until it has grown by as
# much as it held at first and by more than any cache would.
_RISES, _RISE = 5, 256 * 1024
_LEAKED = 64 * MIB


class Look(NamedTuple):
    """One worker that is looked at, and what was seen."""

    worker: Worker
    pid: int
    measure: bool
    resident: int | None = None
    private: int | None = None


class MemoryAccount:
    """Bytes. `budget` is for the front, the template and all workers together."""

    def __init__(self, limits: Limits, budget: int) -> None:
        self.budget = budget
        self._limits = limits
        self._reserve = int(limits.memory * _RESERVE)
        self._workers = 0
        self._leaving = 0
        self._base = 0
        self._copied = _USUAL_COPIED
        # What a worker holds when it has loaded, on average of late.
        self._usual = _USUAL_COPIED
        self._rotation: deque[Worker] = deque()
        # Memory that the host had when it was last asked, less what was started since.
        self._host_room = limits.available_memory() - self._reserve

    @property
    def used(self) -> int:
        return self._base + self._workers

    def estimate(self, pool: Pool) -> int:
        """What one more worker of a model will hold."""
        return pool.worker_memory or self._usual

    def fits(self, needed: int) -> bool:
        """Whether so much can be taken now."""
        return self.used + needed <= self.budget and needed <= self._host_room

    def shortage(self, needed: int) -> int:
        """Bytes that have to be freed, beyond what is about to be, before so much can be taken; none if negative."""
        return max(self.used + needed - self.budget, needed - self._host_room) - self._leaving

    def add(self, worker: Worker) -> None:
        """The worker is being started."""
        self._set(worker, self.estimate(worker.pool))
        self._host_room -= worker.memory.held
        self._rotation.append(worker)

    def forked(self, worker: Worker) -> None:
        worker.memory.resident_at_fork = processes.resident(worker.pid) or 0

    def loaded(self, worker: Worker) -> None:
        resident = processes.resident(worker.pid)
        if resident is not None:
            self._seen(Look(worker, worker.pid, False, resident))

    def leaving(self, worker: Worker) -> None:
        """The worker has been told to end."""
        if worker.state is not WorkerState.DEAD and not worker.leaving:
            worker.leaving = True
            self._leaving += worker.memory.held

    def remove(self, worker: Worker) -> None:
        """The worker has ended."""
        if worker.leaving:
            self._leaving -= worker.memory.held
        self._workers -= worker.memory.held
        self._host_room += worker.memory.held
        worker.memory.held = 0

    async def look(self, template: int) -> list[Worker]:
        """Looks at some of the workers, once a second, in a thread. Returns those that were seen."""
        looks = self._next()
        base, seen = await asyncio.to_thread(_look, template, looks)
        self._base = base
        self._host_room = self._limits.available_memory() - self._reserve
        alive = [look for look in seen if look.worker.state is not WorkerState.DEAD and look.resident is not None]
        for look in alive:
            self._seen(look)
        return [look.worker for look in alive]

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
        if worker.answered:
            memory.rises = memory.rises + 1 if held >= memory.held + _RISE else 0
            memory.reference = memory.reference or held
        self._set(worker, held)
        worker.pool.worker_memory = held
        if not worker.answered:
            self._usual += int(_LATEST * (held - self._usual))

    def _set(self, worker: Worker, held: int) -> None:
        change = held - worker.memory.held
        worker.memory.held = held
        self._workers += change
        if worker.leaving:
            self._leaving += change


def leaks(worker: Worker) -> bool:
    """Whether the worker grows and grows."""
    memory = worker.memory
    if memory.rises < _RISES or memory.reference is None:
        return False
    return memory.held - memory.reference > max(_LEAKED, memory.reference)


def _look(template: int, looks: Sequence[Look]) -> tuple[int, list[Look]]:
    """Blocks. What the front and the template hold, and what was seen of the workers."""
    base = (processes.private(os.getpid()) or 0) + ((processes.resident(template) or 0) if template else 0)
    return base, [
        look._replace(
            resident=processes.resident(look.pid), private=processes.private(look.pid) if look.measure else None
        )
        for look in looks
    ]
