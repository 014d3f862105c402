"""Who asks what and when: days and nights, spikes, hot minutes, floods, and somebody who asks every model in turn."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.simulation.population import Profile

DAY = 86400.0
# Of a cyclic scan, in requests a second: every one of them may be a start.
_SCAN_RATE = 15.0
# As many as a client's pool of connections has.
_SPIKE = 64
# Requests a second of one model; those of a faster one would be most of the simulation.
_MOST = 400.0


class Call(NamedTuple):
    """So many requests for one model, at one moment."""

    model: int
    requests: int = 1


Traffic = Iterator[tuple[float, Call]]


def popularity(number: int, chance: random.Random) -> list[float]:
    """Zipf's law, over models in any order; cumulated."""
    weights = [1 / rank for rank in range(1, number + 1)]
    chance.shuffle(weights)
    return list(itertools.accumulate(weights))


def daily(profiles: Sequence[Profile], weights: Sequence[float], rate: float, chance: random.Random) -> Traffic:
    """Poisson, by popularity, with a day and a night for each model. `rate` is by noon everywhere at once."""
    now = 0.0
    while True:
        now += chance.expovariate(rate)
        index = bisect.bisect(weights, chance.random() * weights[-1])
        noon = 0.5 - 0.5 * math.cos(2 * math.pi * (now / DAY + profiles[index].zone))
        if chance.random() < 0.05 + 0.95 * noon:
            yield now, Call(index)


def zipf(weights: Sequence[float], rate: float, chance: random.Random) -> Traffic:
    """Poisson, by popularity, at any time of the day."""
    now = 0.0
    while True:
        now += chance.expovariate(rate)
        yield now, Call(bisect.bisect(weights, chance.random() * weights[-1]))


def spikes(number: int, every: float, chance: random.Random) -> Traffic:
    """A model, asleep as most are, is asked by many at once."""
    now = 0.0
    while True:
        now += chance.expovariate(1 / every)
        yield now, Call(chance.randrange(number), _SPIKE)


def together(models: Sequence[int], every: float) -> Traffic:
    """Somebody's clock strikes, and many models are asked at the same moment."""
    for turn in itertools.count(1):
        yield from ((every * turn, Call(index)) for index in models)


def hot(
    profiles: Sequence[Profile], every: float, seconds: float, load: float, cpus: float, chance: random.Random
) -> Traffic:
    """Now and then a model is asked for a while as much as is so many times what it can serve: above 1, a flood."""
    now = 0.0
    while True:
        now += chance.expovariate(1 / every)
        profile = chance.choice(profiles)
        rate = min(load * capacity(profile, cpus), _MOST)
        end = now + seconds
        while (now := now + chance.expovariate(rate)) < end:
            yield now, Call(profile.index)


def capacity(profile: Profile, cpus: float) -> float:
    """Requests a second that a model can serve on a host that has nothing else to do."""
    settings = profile.settings
    return min(settings.max_workers, cpus / profile.cpu_share) * settings.batch_size / profile.service


def scan(number: int, rate: float = _SCAN_RATE, begin: float = 0.0) -> Traffic:
    """Every model in turn, once."""
    return ((begin + index / rate, Call(index)) for index in range(number))


def scans(number: int, every: float) -> Traffic:
    """Somebody asks every model in turn, now and then."""
    return itertools.chain.from_iterable(scan(number, begin=every * turn) for turn in itertools.count(1))
