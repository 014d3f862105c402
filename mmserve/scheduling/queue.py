"""The requests waiting for one model: by priority, and first come, first served within one."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mmserve.errors import DeadlineExceeded, NotLoadedInTime
from mmserve.models.model import Model
from mmserve.scheduling.request import Request
from mmserve.scheduling.share import LONG
from mmserve.scheduling.streams import Stream
from mmserve.supervision.policy import LONG_QUEUE
from mmserve.supervision.pool import Pool
from mmserve_worker import batch
from mmserve_worker.calls import Buffer

# How much the latest batch counts in the average.
_LATEST = 0.2


@dataclass(slots=True)
class Batch:
    """What one worker holds. Answers come in order; `answered` counts them.

    `stream` is the last of them that came in pieces.
    """

    requests: list[Request]
    answered: int = 0
    id: int = 0
    stream: Stream | None = None


class ModelQueue:
    """Bounded by its model's `job_queue_size`, which the dispatcher enforces."""

    def __init__(self, model: Model, pool: Pool) -> None:
        self.model = model
        self.pool = pool
        self.waiting: deque[Request] = deque()
        pool.waiting = self.waiting
        # Requests so far.
        self.requests = 0
        # See share.py.
        self.used = 0.0
        self.in_line = False
        self.long_batches = False
        # Its answers come in pieces: nobody is to wait for somebody else's.
        self.streams = False
        # Seconds that the handler takes for a batch, on average of late.
        self._handler_time = 0.0
        # Set while the queue waits to be looked at: for a full batch, or for the end of this turn of the event loop.
        self.delay: asyncio.TimerHandle | None = None
        self.due = False

    @property
    def long(self) -> int:
        """Requests with which the queue becomes one that more workers may be needed for."""
        return LONG_QUEUE * self.pool.settings.batch_size

    @property
    def weight(self) -> float:
        return self.pool.settings.weight

    def note(self, seconds: float) -> None:
        """The handler took so long for a batch."""
        self._handler_time += _LATEST * (seconds - self._handler_time)
        self.long_batches = self._handler_time >= LONG

    def put(self, request: Request) -> None:
        """Behind all that are as urgent. Few say a priority, so the way from the end is short."""
        waiting = self.waiting
        self.requests += 1
        if not waiting or waiting[-1].priority <= request.priority:
            waiting.append(request)
            return
        place = len(waiting)
        while place and waiting[place - 1].priority > request.priority:
            place -= 1
        waiting.insert(place, request)

    def take(self, capacity: int) -> Batch:
        """The next batch: as many waiting requests as the model's batch size and a channel of `capacity` allow."""
        waiting = self.waiting
        first = waiting.popleft()
        requests = [first]
        # One that a worker died of goes alone, so that it cannot take its neighbours with it a second time.
        if first.deaths == 0:
            room = capacity - _size(first.body)
            size = 1 if self.streams else self.pool.settings.batch_size
            while waiting and len(requests) < size:
                room -= _size(waiting[0].body)
                if room < 0 or waiting[0].deaths:
                    break
                requests.append(waiting.popleft())
        return Batch(requests)

    def give_back(self, requests: list[Request]) -> None:
        """Puts requests back to where they were taken from."""
        self.waiting.extendleft(reversed(requests))

    def expire(self, now: float) -> int:
        """Answers the waiting requests whose deadline has passed, and says how many these were."""
        waiting = self.waiting
        late = [request for request in waiting if request.deadline <= now or request.future.done()]
        for request in late:
            waiting.remove(request)
        loaded = bool(self.pool.ready)
        return sum(fail_late(request, loaded=loaded) for request in late)


def fail_late(request: Request, *, loaded: bool = True) -> bool:
    """Says whether anybody still waited."""
    if request.future.done():
        return False
    error = (
        DeadlineExceeded("The deadline passed before the request could be answered.")
        if loaded
        else NotLoadedInTime("The deadline passed before the model was loaded.")
    )
    request.future.set_exception(error)
    return True


# A generous bound of what a request takes in a frame beside its body: its part header, padding and meta.
_BESIDE_BODY = 1024


def _size(body: Buffer) -> int:
    return batch.body_length(body) + _BESIDE_BODY
