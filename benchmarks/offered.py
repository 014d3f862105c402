"""Load at a fixed rate, whatever the server does with it: what is due is sent, or waits here for a free connection.

An answer's time counts from when its request was due and not from when it was sent. So a server cannot look better by
taking less. The event loop's timers are good to a millisecond, by which a request may be late.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import uvloop

from benchmarks.record import Record
from benchmarks.servers import TIMEOUT, Address
from benchmarks.traffic import Call, Connection

# Enough that requests do not wait here unless the server leaves a second's worth of them unanswered.
_CONNECTIONS = 256
# Between two looks at whether everything has been answered, in seconds.
_PAUSE = 0.01
# What timers are good to: a shorter one keeps the loop busy.
_TICK = 0.001


class Phase(NamedTuple):
    """So many requests a second for so long."""

    rate: float
    seconds: float


class _Offered(Connection):
    """A connection that is told when to send."""

    def __init__(self, offer: _Offer, record: Record) -> None:
        super().__init__(iter(()), record)
        self._offer = offer
        self._record = record
        self._held = 0.0

    def send(self, call: Call, due: float) -> None:
        self._call = call
        self._sent_at = due
        self._held = time.perf_counter() - due
        self._transport.write(call.request)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._offer.lost(self)

    def _answered(self, status: int, body: bytes) -> None:
        assert self._call is not None
        self._record.note(self._call, status, body, time.perf_counter() - self._sent_at, self._held)

    def _send_next(self) -> None:
        self._call = None
        self._offer.freed(self)


class _Offer:
    """What is due, what waits, and who is free to send it."""

    def __init__(self, calls: Iterator[Call], phases: Sequence[Phase]) -> None:
        self.record = Record()
        self._loop = asyncio.get_running_loop()
        self._calls = calls
        self._phases = phases
        self._dues: Iterator[float] = iter(())
        self._next: float | None = None
        self._waiting: deque[float] = deque()
        # The one that has been free for longest comes first.
        self._free: deque[_Offered] = deque()
        self._opened: list[_Offered] = []

    async def make(self, address: Address, connections: int) -> None:
        for _ in range(connections):
            _, connection = await self._loop.create_connection(
                lambda: _Offered(self, self.record), address.host, address.port
            )
            self._opened.append(connection)
        self.record.began = time.perf_counter()
        self._dues = _dues(self.record.began, self._phases)
        self._next = next(self._dues, None)
        self._tick()
        end = self.record.began + sum(phase.seconds for phase in self._phases) + TIMEOUT
        while self._next is not None or self._waiting or len(self._free) < len(self._opened):
            if time.perf_counter() > end or not self._opened:
                self.record.errors["no answer"] += len(self._opened) - len(self._free) + len(self._waiting)
                break
            await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        for connection in list(self._opened):
            connection.close()

    def freed(self, connection: _Offered) -> None:
        if self._waiting:
            connection.send(next(self._calls), self._waiting.popleft())
        else:
            self._free.append(connection)

    def lost(self, connection: _Offered) -> None:
        self._opened.remove(connection)
        if connection in self._free:
            self._free.remove(connection)

    def _tick(self) -> None:
        now = time.perf_counter()
        while self._next is not None and self._next <= now:
            self._waiting.append(self._next)
            self._next = next(self._dues, None)
        while self._waiting and self._free:
            self._free.popleft().send(next(self._calls), self._waiting.popleft())
        if self._next is not None:
            self._loop.call_later(max(self._next - now, _TICK), self._tick)


def _dues(start: float, phases: Sequence[Phase]) -> Iterator[float]:
    """When each request is due."""
    for phase in phases:
        for number in range(round(phase.rate * phase.seconds)):
            yield start + number / phase.rate
        start += phase.seconds


def offer(
    address: Address, calls: Sequence[Call], phases: Sequence[Phase], *, connections: int = _CONNECTIONS
) -> Record:
    """Makes the calls over and over, in turn, at these rates."""

    async def make() -> Record:
        made = _Offer(itertools.cycle(calls), phases)
        try:
            await made.make(address, connections)
        finally:
            made.close()
        return made.record

    return uvloop.run(make())
