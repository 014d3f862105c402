"""How many workers a model should have: a pure function of what was observed.

No clock, no process and no other model in here, so that days of traffic can be simulated in seconds and every decision
can be explained by what it was made from. What a host has no memory for is decided in room.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal["min_workers", "request", "load", "queue", "idle", "max_workers", "enough"]

# Seconds that requests may have to wait for a worker before more are started. Two starts long, so that a queue that
# one worker is about to finish starts nothing.
TARGET_WAIT = 0.05
# A queue this many batches long is looked at, however short its wait is thought to be (DJL Serving's rule).
LONG_QUEUE = 2
# A model that needs a CPU for less than this share of its time waits for something else. Above, it computes: what is
# missing to 1 is how long it took until its worker ran and its answer was read.
WAITING = 0.5


@dataclass(frozen=True, slots=True)
class Sight:
    """One model's workers and queue as they are now. Times in seconds."""

    min_workers: int
    max_workers: int
    batch_size: int
    max_idle_time: float
    # Requests that no worker has yet.
    waiting: int
    busy: int
    starting: int
    # For how long each idle worker has been idle, longest first.
    idle: Sequence[float]
    # Somebody asked for the model to be loaded, without a request for it.
    wanted: bool
    # What a batch takes, and what a start takes: as measured, or None and the usual.
    service_time: float | None
    start_time: float
    # How much of a batch's time needs a CPU, from 0 for one that only waits to 1. None where that is not known.
    cpu_share: float | None
    # The model has been loaded before: as long as that is not known, one worker tries it.
    proven: bool = True


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many workers there should be, and why."""

    workers: int
    reason: Reason


def scale(sight: Sight, cpus: float) -> Scaling:
    """What should run for a model on a host with so many usable CPUs."""
    serving = sight.busy + sight.starting + len(sight.idle)
    if serving < sight.min_workers:
        return Scaling(sight.min_workers, "min_workers")
    most = max(sight.max_workers, sight.min_workers)
    if serving > most:
        return Scaling(most, "max_workers")
    if serving == 0:
        if sight.waiting:
            return Scaling(1, "request")
        return Scaling(1, "load") if sight.wanted else Scaling(0, "enough")
    if sight.waiting and not sight.idle and (sight.proven or sight.busy):
        workers = min(_needed(sight), most, max(serving, useful(sight.cpu_share, cpus)))
        return Scaling(workers, "queue") if workers > serving else Scaling(serving, "enough")
    if sight.waiting:
        # An idle worker is about to take what waits, once there is a CPU for it or its batch is full.
        return Scaling(serving, "enough")
    expired = sum(age >= sight.max_idle_time for age in sight.idle)
    workers = max(serving - expired, sight.min_workers)
    return Scaling(workers, "idle") if workers < serving else Scaling(serving, "enough")


def useful(cpu_share: float | None, cpus: float) -> int:
    """Workers of one model that the CPUs can keep busy. One of which nothing is known is thought to need a CPU."""
    needs = 1.0 if cpu_share is None or cpu_share >= WAITING else max(cpu_share, 0.001)
    return max(1, math.ceil(cpus / needs))


def _needed(sight: Sight) -> int:
    """The fewest workers with which what waits has not to wait too long, at most one for each batch of it."""
    running = sight.busy + sight.starting
    batches = math.ceil(sight.waiting / sight.batch_size)
    # Those that are starting take a batch each: the next look at the same queue starts no more for it.
    most = max(running, sight.busy + batches)
    long = sight.waiting > LONG_QUEUE * sight.batch_size
    if sight.service_time is None:
        return most if long else running
    work = batches * sight.service_time
    wait = work / running
    # A worker that would come when the queue is gone is none that the queue justifies.
    if wait > TARGET_WAIT or (long and wait > sight.start_time and not sight.starting):
        return min(most, max(running + 1, math.ceil(work / TARGET_WAIT)))
    return running
