"""A host with its models and its traffic, put together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.simulation.checker import Checker
from benchmarks.simulation.clock import Clock
from benchmarks.simulation.dispatching import Dispatcher
from benchmarks.simulation.population import Profile
from benchmarks.simulation.stand_ins import ModelQueue, SimulatedHost, SimulatedMemory, SimulatedWorker
from benchmarks.simulation.supervising import Scale, Supervisor
from benchmarks.simulation.traffic import Traffic
from mmserve.scheduling.share import CpuShare
from mmserve.supervision import policy
from mmserve.supervision.eviction import IdleWorkers
from mmserve.supervision.worker import Worker

# As the server has them.
_SLOTS_PER_CPU = 2
# Seconds within which the longest queue of the slowest model is served.
_SETTLE = 300.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides: the server's own, unless somebody wants to see what another would do."""

    scale: Scale = policy.scale
    idle: Callable[[], IdleWorkers[Worker]] = IdleWorkers
    share: Callable[[int], CpuShare[ModelQueue, SimulatedWorker]] = CpuShare
    memory: type[SimulatedMemory] = SimulatedMemory


class Simulation:
    """`memory_budget` in bytes; every `deaths_every` seconds, on average, somebody kills a worker."""

    def __init__(
        self,
        profiles: Sequence[Profile],
        *,
        cpus: int,
        memory_budget: int,
        seed: int = 0,
        deaths_every: float = 0.0,
        rules: Rules | None = None,
    ) -> None:
        rules = rules or Rules()
        slots = cpus * _SLOTS_PER_CPU
        chance = random.Random(seed)
        self.clock = Clock()
        self.checker = Checker(self.clock, profiles, cpus=cpus, slots=slots, memory_budget=memory_budget)
        self.supervisor = Supervisor(
            self.clock,
            self.checker,
            chance,
            cpus=cpus,
            memory=rules.memory(SimulatedHost(), memory_budget),
            scale=rules.scale,
            idle=rules.idle(),
        )
        self.dispatcher = Dispatcher(
            self.clock, self.checker, chance, self.supervisor, profiles, cpus=cpus, share=rules.share(slots)
        )
        self._chance = chance
        self._deaths_every = deaths_every
        if deaths_every:
            self._plan_death()
        for queue in self.dispatcher.queues:
            if queue.pool.settings.min_workers:
                self.supervisor.reconcile(queue.pool)

    def add(self, traffic: Traffic) -> None:
        self.clock.play(traffic, self.dispatcher.submit)

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds, self.checker.check)

    def finish(self) -> Checker:
        """No more requests come: what is left to do is done, and everything was as it should be, or was not."""
        self.dispatcher.closed = True
        self.run(_SETTLE)
        self.checker.finish()
        return self.checker

    def _plan_death(self) -> None:
        self.clock.after(self._chance.expovariate(1 / self._deaths_every), self._kill_one)

    def _kill_one(self) -> None:
        # The same ones with the same seed, in whatever order they have come and gone.
        if self.supervisor.workers:
            self.supervisor.kill(self._chance.choice(list(self.supervisor.workers.values())))
        self._plan_death()
