"""An hour of a host with 500 models, simulated; and for each thing that has to hold, a rule that breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from benchmarks.simulation import scenarios, traffic
from benchmarks.simulation.checker import Checker
from benchmarks.simulation.population import MIB, Profile, settings
from benchmarks.simulation.simulation import Rules, Simulation
from benchmarks.simulation.stand_ins import LeastRecentlyUsed, ModelQueue, Request, SimulatedMemory, SimulatedWorker
from benchmarks.simulation.traffic import Call
from mmserve.scheduling.share import QUANTUM, CpuShare
from mmserve.supervision.eviction import IdleWorkers, Victim
from mmserve.supervision.policy import Scaling, Sight, scale
from mmserve.supervision.worker import Worker

_MODELS = 500
# Seconds after which the models with a minimum are there.
_STARTED = 3.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_has_to_hold_holds_at_every_step(seed: int) -> None:
    simulation = scenarios.everyday(_MODELS, seed, rate=5.0)
    simulation.run(scenarios.HOUR)
    checker = simulation.finish()
    assert not checker.violations, checker.examples
    # All that there is to go wrong has happened.
    counts = simulation.supervisor.counts
    assert min(counts.starts, counts.evictions, counts.idle_stops, counts.deaths) > 30
    assert checker.requests > 5_000


def test_the_same_seed_is_the_same_simulation() -> None:
    def summary() -> object:
        simulation = scenarios.everyday(100, 7, rate=5.0)
        simulation.run(600.0)
        checker = simulation.finish()
        return simulation.clock.steps, simulation.supervisor.counts, checker.requests, list(checker.waits)

    assert summary() == summary()


def test_models_asked_in_turn_leave_most_of_those_in_memory_alone() -> None:
    found = scenarios.hits_of_a_scan(turns=4)
    assert found > 0.9 * scenarios.ROOM / scenarios.SCANNED
    assert scenarios.hits_of_a_scan(Rules(idle=LeastRecentlyUsed), turns=4) == 0.0


def test_popular_models_are_found_as_often_as_with_the_least_recently_used_first() -> None:
    lru = scenarios.hits_of_popular_ones(Rules(idle=LeastRecentlyUsed), requests=10_000)
    assert scenarios.hits_of_popular_ones(requests=10_000) >= lru


def test_a_worker_that_is_killed_once_an_hour_is_always_there_again() -> None:
    kept = Profile(0, settings(min_workers=1), 0.001, 1.0, 0.025, 8 * MIB)
    simulation = Simulation([kept], cpus=2, memory_budget=1000 * MIB, deaths_every=3600.0)
    simulation.run(48 * scenarios.HOUR)
    checker = simulation.finish()
    assert not checker.violations, checker.examples


def test_a_flood_next_door_does_not_delay_the_others() -> None:
    """Ten times what a model can serve, with two workers that want both CPUs all the time."""
    flood = Profile(0, settings(batch_size=1, max_workers=2, job_queue_size=50), 0.02, 1.0, 0.025, 8 * MIB)
    others = [Profile(index, settings(min_workers=1), 0.001, 1.0, 0.025, 8 * MIB) for index in range(1, 21)]
    simulation = Simulation([flood, *others], cpus=2, memory_budget=1000 * MIB)
    simulation.run(_STARTED)
    simulation.add(poisson(0, 1000.0, seed=1))
    for other in others:
        simulation.add(poisson(other.index, 5.0, seed=other.index))
    simulation.run(20.0)
    checker = simulation.finish()
    assert not checker.violations, checker.examples
    assert checker.refused_requests["full"] > 15_000
    # But for the flood's first, these are the others': its queue is never empty.
    waits = sorted(checker.waits)
    assert len(waits) > 1500
    assert waits[-2] <= QUANTUM + 0.001


def poisson(model: int, rate: float, *, seed: int) -> traffic.Traffic:
    chance = random.Random(seed)
    now = _STARTED
    while True:
        now += chance.expovariate(rate)
        yield now, Call(model)


# Faults, and what has to be seen of each.


def with_any_number(sight: Sight, cpus: float) -> Scaling:
    return scale(replace(sight, max_workers=1000, cpu_share=0.01), cpus)


def without_minimum(sight: Sight, cpus: float) -> Scaling:
    return scale(replace(sight, min_workers=0), cpus)


def with_one_at_the_most(sight: Sight, cpus: float) -> Scaling:
    return scale(replace(sight, max_workers=1), cpus)


def with_none(sight: Sight, cpus: float) -> Scaling:
    return Scaling(sight.busy + sight.starting + len(sight.idle), "enough")


def with_half_of_the_idle_time(sight: Sight, cpus: float) -> Scaling:
    return scale(replace(sight, max_idle_time=sight.max_idle_time / 2), cpus)


def with_one_at_the_least(sight: Sight, cpus: float) -> Scaling:
    return scale(replace(sight, wanted=True), cpus)


class Impatient(IdleWorkers[Worker]):
    def expired(self, now: float, limit: Callable[[Worker], float]) -> list[Worker]:
        return super().expired(now, lambda worker: limit(worker) / 2)


class Ruthless(IdleWorkers[Worker]):
    def evictable(self, may_go: Callable[[Worker], bool]) -> Iterator[Worker]:
        return super().evictable(lambda worker: True)


class Sparing(IdleWorkers[Worker]):
    def victim(self, now: float, may_go: Callable[[Worker], bool]) -> Victim[Worker] | None:
        return None


class Overdrawn(SimulatedMemory):
    def fits(self, needed: int) -> bool:
        return True


class Forgetful(CpuShare[ModelQueue, SimulatedWorker]):
    def next(self, now: float) -> ModelQueue | None:
        return None


class Generous(CpuShare[ModelQueue, SimulatedWorker]):
    def __init__(self, slots: int) -> None:
        super().__init__(slots + 1)


def is_seen(simulation: Simulation, seen: set[str], seconds: float) -> bool:
    """Whether all of this is found wrong within so many seconds. A fault may make every further one very busy."""
    while simulation.clock.now < seconds and not seen <= simulation.checker.violations.keys():
        simulation.run(1.0)
    return seen <= simulation.checker.violations.keys()


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        (Rules(scale=with_any_number), {"max"}),
        (Rules(scale=without_minimum), {"min"}),
        (Rules(scale=with_none), {"starvation", "min"}),
        (Rules(scale=with_half_of_the_idle_time, idle=Impatient), {"see-saw"}),
        (Rules(scale=with_one_at_the_least), {"see-saw"}),
        (Rules(idle=Ruthless), {"pinned", "min", "in use"}),
        (Rules(idle=Sparing), {"refused"}),
        (Rules(memory=Overdrawn), {"budget"}),
    ],
    ids=lambda value: "" if isinstance(value, Rules) else "-".join(sorted(value)),
)
def test_a_rule_that_breaks_what_has_to_hold_is_seen(rules: Rules, seen: set[str]) -> None:
    assert is_seen(scenarios.everyday(150, 1, rate=4.0, rules=rules), seen, 900.0)


def hot_spot(rules: Rules | None = None) -> Checker:
    """A sleeping model, which only waits, is asked by many at once."""
    waiting = Profile(0, settings(batch_size=1, max_workers=16), 1.0, 0.02, 0.025, 8 * MIB)
    simulation = Simulation([waiting], cpus=2, memory_budget=1000 * MIB, rules=rules)
    simulation.add(iter([(1.0, Call(0, 64))]))
    simulation.run(60.0)
    return simulation.finish()


def test_a_hot_spot_gets_all_the_workers_that_it_may_have() -> None:
    checker = hot_spot()
    assert not checker.violations, checker.examples


def test_a_hot_spot_that_gets_one_worker_is_seen() -> None:
    assert "starvation" in hot_spot(Rules(scale=with_one_at_the_most)).violations


def crowd(rules: Rules | None = None) -> Checker:
    """Forty models that are asked at the same moments, by a host with room for four batches."""
    profiles = [Profile(index, settings(min_workers=1), 0.005, 1.0, 0.025, 8 * MIB) for index in range(40)]
    simulation = Simulation(profiles, cpus=2, memory_budget=1000 * MIB, rules=rules)
    simulation.run(_STARTED)
    simulation.add(traffic.together(range(40), _STARTED + 1.0))
    simulation.run(30.0)
    return simulation.finish()


def test_many_that_want_a_cpu_at_the_same_moment_get_it_in_turn() -> None:
    checker = crowd()
    assert not checker.violations, checker.examples


@pytest.mark.parametrize(("share", "seen"), [(Generous, "slots"), (Forgetful, "starvation")])
def test_a_share_of_the_cpu_that_is_not_kept_is_seen(
    share: Callable[[int], CpuShare[ModelQueue, SimulatedWorker]], seen: str
) -> None:
    assert seen in crowd(Rules(share=share)).violations


def test_requests_out_of_their_order_and_batches_too_large_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_all_from_the_end(queue: ModelQueue) -> list[Request]:
        taken = list(reversed(queue.waiting))
        queue.waiting.clear()
        return taken

    monkeypatch.setattr(ModelQueue, "take", take_all_from_the_end)
    assert is_seen(scenarios.everyday(150, 1, rate=4.0), {"order", "batch size"}, 900.0)
