"""What the checker of a simulation knows of models and workers, from what was done with them. Times in seconds."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.simulation.population import Profile


class Waiting(NamedTuple):
    """A request that waits, and by when it has to be served. `first` says that there was no other before it."""

    number: int
    arrived: float
    due: float
    first: bool


@dataclass(eq=False, slots=True)
class KnownWorker:
    model: KnownModel
    # Since when it is idle; None while it loads, or holds a batch.
    idle_since: float | None = None
    loaded: bool = False
    stopped: bool = False
    # Requests that it was given.
    held: int = 0
    # Bytes that the server can know of.
    known: int = 0


@dataclass(eq=False, slots=True)
class KnownModel:
    profile: Profile
    serving: int = 0
    ready: int = 0
    idle: int = 0
    # What waits, in the order in which it has to be served, and by when.
    waiting: deque[Waiting] = field(default_factory=deque)
    last_arrival: float = -math.inf
    last_idle_stop: float = -math.inf
    # Since when fewer are ready than its minimum.
    short_since: float | None = None
    # One has loaded, so that it is known what a worker holds.
    measured: bool = False
