"""What is simulated: everyday traffic on a host, and two kinds of it that tell one rule of eviction from another."""

from __future__ import annotations

import itertools
import random

from benchmarks.simulation import traffic
from benchmarks.simulation.population import MIB, Profile, population, settings
from benchmarks.simulation.simulation import Rules, Simulation

CPUS = 2
HOUR = 3600.0
# Of the host with everyday traffic: what one in twenty of its models holds while it runs, or a little more.
_MEMORY_OF_A_MODEL = 0.4 * MIB
# Requests a second at noon, for a thousand models; what makes a day of 5,000 last less than a minute.
_RATE = 0.85
# Models that are asked at the same moment, and as many as that are the most popular ones.
_TOGETHER = 60
# Requests a second, of a model that is thought to be slow enough for a flood.
_SLOW = 40.0
# Of the hosts that are to tell rules of eviction apart: models, workers that there is memory for, requests a second.
SCANNED, ROOM = 1000, 160
_RATE_OF_SCAN = 20.0
_WORKER = 6 * MIB


def everyday(models: int, seed: int, *, rate: float | None = None, rules: Rules | None = None) -> Simulation:
    """A host with more models than memory, asked by day and by night, in spikes, by floods and in turn.

    `rate` is in requests a second at noon, without the spikes and all that.
    """
    chance = random.Random(seed)
    profiles = population(models, CPUS, chance)
    weights = traffic.popularity(models, chance)
    simulation = Simulation(
        profiles,
        cpus=CPUS,
        # The few that are there for ever, and one large model, need some even on a small host.
        memory_budget=int(300 * MIB + models * _MEMORY_OF_A_MODEL),
        seed=seed,
        deaths_every=60.0,
        rules=rules,
    )

    def own() -> random.Random:
        """So that one kind of traffic does not change with another."""
        return random.Random(chance.random())

    slow = [profile for profile in profiles if traffic.capacity(profile, CPUS) < _SLOW]
    popular = sorted(range(models), key=lambda index: weights[index] - (weights[index - 1] if index else 0.0))
    simulation.add(traffic.daily(profiles, weights, _RATE * models / 1000 if rate is None else rate, own()))
    simulation.add(traffic.spikes(models, 300.0, own()))
    simulation.add(traffic.hot(profiles, 2 * HOUR, 60.0, 0.7, CPUS, own()))
    simulation.add(traffic.hot(slow, 2 * HOUR, 20.0, 10.0, CPUS, own()))
    simulation.add(traffic.together(popular[-_TOGETHER:], 600.0))
    simulation.add(traffic.scans(models, models * 3.0))
    return simulation


def alike(models: int, *, memory: int, rules: Rules | None = None) -> Simulation:
    """Models that differ in nothing, and stay until they are evicted; there is memory for so many."""
    return Simulation(
        [
            Profile(index, settings(max_workers=1, max_idle_time=1e6), 0.0005, 1.0, 0.025, _WORKER)
            for index in range(models)
        ],
        cpus=CPUS,
        memory_budget=memory * _WORKER,
        rules=rules,
    )


def hits_of_a_scan(rules: Rules | None = None, turns: int = 10) -> float:
    """The share of requests that find a worker when all models are asked in turn, again and again."""
    simulation = alike(SCANNED, memory=ROOM, rules=rules)
    turn = SCANNED / _RATE_OF_SCAN
    # Nobody knows in the first turn who will come back.
    scans = (traffic.scan(SCANNED, _RATE_OF_SCAN, number * turn) for number in range(turns))
    simulation.add(itertools.chain.from_iterable(scans))
    return _hits(simulation, turns * turn, after=turn)


def hits_of_popular_ones(rules: Rules | None = None, requests: int = 30_000) -> float:
    """The same when some models are asked more often than others, by Zipf's law."""
    chance = random.Random(1)
    simulation = alike(SCANNED, memory=ROOM, rules=rules)
    simulation.add(traffic.zipf(traffic.popularity(SCANNED, chance), _RATE_OF_SCAN, chance))
    return _hits(simulation, requests / _RATE_OF_SCAN, after=0.0)


def _hits(simulation: Simulation, seconds: float, *, after: float) -> float:
    checker = simulation.checker
    simulation.run(after)
    hits, requests = checker.hits, checker.requests
    simulation.run(seconds - after)
    simulation.finish()
    if checker.violations:
        raise AssertionError(f"{dict(checker.violations)}: {checker.examples}")
    return (checker.hits - hits) / (checker.requests - requests)
