"""What stands in for processes and for the host: workers that are numbers, and memory that is known without looking."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from benchmarks.simulation.population import Profile
from mmserve.models.model import Model
from mmserve.models.source import LocalSource
from mmserve.observability.stats import ModelStats
from mmserve.supervision.eviction import IdleWorkers
from mmserve.supervision.limits import Limits
from mmserve.supervision.memory import MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Worker, WorkerState
from mmserve_worker.channel import Channel


@dataclass(eq=False, slots=True)
class Request:
    """`number` counts those of its model."""

    number: int
    deaths: int = 0


class ModelQueue:
    """The requests that wait for a model, as share.py sees them."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.pool = SimulatedPool(profile)
        self.waiting: deque[Request] = deque()
        self.pool.waiting = self.waiting
        self.used = 0.0
        self.in_line = False
        self.requests = 0

    @property
    def weight(self) -> float:
        return self.pool.settings.weight

    def take(self) -> list[Request]:
        """As the real one: what a worker died of goes alone."""
        waiting = self.waiting
        taken = [waiting.popleft()]
        if not taken[0].deaths:
            size = self.pool.settings.batch_size
            while waiting and len(taken) < size and not waiting[0].deaths:
                taken.append(waiting.popleft())
        return taken


class SimulatedPool(Pool):
    def __init__(self, profile: Profile) -> None:
        super().__init__(Model(profile.name, LocalSource(Path(profile.name))), profile.settings, ModelStats())
        self.profile = profile


class SimulatedWorker(Worker):
    """Has the states of a worker, and no process."""

    pool: SimulatedPool

    def __init__(self, worker_id: int, pool: SimulatedPool, reason: str, now: float) -> None:
        super().__init__(worker_id, pool, cast(Channel, None), reason, None)
        self.pid = worker_id
        self.asked_at = now
        self.cpu_used = 0.0

    def loaded(self) -> None:
        self.state = WorkerState.IDLE

    def cpu_seconds(self) -> float | None:
        return self.cpu_used

    def stop(self) -> None:
        self.state = WorkerState.STOPPING

    def die(self) -> None:
        self.state = WorkerState.DEAD


class SimulatedHost(Limits):
    """A host that has more than enough memory beyond the budget."""

    @property
    def memory(self) -> int:
        return 1 << 60

    def available_memory(self) -> int:
        return 1 << 59


class SimulatedMemory(MemoryAccount):
    """Knows what a worker holds once it has loaded its model, no sooner. The front and the template hold nothing."""

    def __init__(self, limits: Limits, budget: int) -> None:
        super().__init__(limits, budget)
        self._base = 0

    def add(self, worker: Worker) -> None:
        super().add(worker)
        # Nobody looks at the processes in turn.
        self._rotation.clear()

    def loaded(self, worker: Worker) -> None:
        assert isinstance(worker, SimulatedWorker)
        self._loaded(worker, worker.pool.profile.memory - self._copied)


class LeastRecentlyUsed(IdleWorkers[Worker]):
    """The rule that most others have, to compare with."""

    def add(self, worker: Worker, now: float, interval: float | None = None) -> None:
        self.discard(worker)
        super().add(worker, now)
