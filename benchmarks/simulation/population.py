"""The models of a simulated host: most small and quick, some heavy, some that wait for something else than a CPU."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from mmserve.models.model import EffectiveSettings

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """What is true of a model, whether the server knows it or not. Times in seconds, memory in bytes."""

    index: int
    settings: EffectiveSettings
    # A batch takes this long where a CPU is free, and a CPU for this part of it.
    service: float
    cpu_share: float
    start: float
    memory: int
    # Where on earth it is asked: the part of a day by which its day is shifted.
    zone: float = 0.0

    @property
    def name(self) -> str:
        return f"model-{self.index}"


def settings(
    *,
    min_workers: int = 0,
    max_workers: int = 4,
    batch_size: int = 8,
    max_idle_time: float = 60.0,
    pinned: bool = False,
    job_queue_size: int = 1000,
    weight: float = 1.0,
) -> EffectiveSettings:
    return EffectiveSettings(
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=batch_size,
        max_batch_delay=0.0,
        max_idle_time=max_idle_time,
        job_queue_size=job_queue_size,
        weight=weight,
        pinned=pinned,
        max_memory=None,
        predict_timeout=60.0,
        model_loading_timeout=240.0,
    )


def population(number: int, cpus: int, chance: random.Random) -> list[Profile]:
    """So many models, as mixed as those of a host with that many CPUs might be."""
    return [_profile(index, cpus, chance) for index in range(number)]


def _profile(index: int, cpus: int, chance: random.Random) -> Profile:
    kind = chance.random()
    share, most = 1.0, cpus
    if kind < 0.85:
        # Linear models and small trees.
        service, batch_size, own = _between(0.0002, 0.005, chance), chance.choice((8, 32)), _between(0.2, 4, chance)
    elif kind < 0.95:
        # Forests.
        service, batch_size, own = _between(0.005, 0.1, chance), chance.choice((4, 8)), _between(2, 30, chance)
    elif kind < 0.98:
        # Handlers that ask a database or another service.
        service, batch_size, own = _between(0.05, 2, chance), chance.choice((1, 2)), _between(1, 8, chance)
        share, most = _between(0.01, 0.2, chance), 16
    else:
        service, batch_size, own = _between(0.2, 2, chance), 1, _between(8, 60, chance)
    least = chance.choice((1, 1, 2)) if chance.random() < 0.01 else 0
    return Profile(
        index=index,
        settings=settings(
            min_workers=least,
            max_workers=chance.choice((least or 1, most, most, most)),
            batch_size=batch_size,
            max_idle_time=chance.choice((5.0, 60.0, 60.0, 60.0, 300.0, 3600.0)),
            job_queue_size=chance.choice((100, 1000)),
            pinned=chance.random() < 0.005,
            weight=chance.choice((0.5, 1.0, 1.0, 1.0, 2.0)),
        ),
        service=service,
        cpu_share=share,
        start=_between(0.025, 0.1, chance) if kind < 0.85 else _between(0.05, 0.5, chance),
        memory=int((5 + own) * MIB),
        zone=chance.choice((0.0, 0.0, 0.3, 0.6)),
    )


def _between(low: float, high: float, chance: random.Random) -> float:
    """As often in each power of ten."""
    return math.exp(chance.uniform(math.log(low), math.log(high)))
