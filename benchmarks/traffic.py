"""Load on many models with every answer checked, without an HTTP library.

Client and server share the cores of one host, so what the client does not use is the server's.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec
import uvloop

from benchmarks.report import percentile
from benchmarks.servers import Address

CONNECTIONS = 32
# Beyond the server's own limit for a request.
_SECONDS_WITHOUT_AN_ANSWER = 90.0


@dataclass(slots=True)
class Call:
    """One request, as it goes over the wire. `expected` are the predictions that are right; None takes all."""

    model: str
    request: bytes
    expected: Sequence[float] | None
    # Bodies that were found right: an answer is parsed once and then only compared.
    right: set[bytes] = field(default_factory=set)

    def accepts(self, body: bytes) -> bool:
        if self.expected is None or body in self.right:
            return True
        predictions = msgspec.json.decode(body)["predictions"]
        if not _same(predictions, self.expected):
            return False
        self.right.add(body)
        return True


def call(model: str, path: str, body: bytes, expected: Sequence[float] | None = None, *, method: str = "POST") -> Call:
    head = f"{method} {path} HTTP/1.1\r\nHost: mmserve\r\n"
    if body:
        head += "Content-Type: application/json\r\n"
    return Call(model, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, expected)


def _same(predictions: Sequence[float], expected: Sequence[float]) -> bool:
    # A batch may be added up in another order than a single row.
    return len(predictions) == len(expected) and all(
        math.isclose(found, right, rel_tol=1e-9, abs_tol=1e-12)
        for found, right in zip(predictions, expected, strict=True)
    )


class Load:
    """What has come of a load so far."""

    def __init__(self) -> None:
        self.answered = 0
        self.seconds = 0.0
        self.errors: Counter[str] = Counter()
        # What the first answer with each wrong status said.
        self.said: dict[int, str] = {}
        # Of models that have answered.
        self.models: set[str] = set()
        # Of each right answer, in seconds.
        self.latencies = array("d")

    @property
    def rate(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def problems(self) -> str:
        """The errors with their counts, or nothing."""
        return ", ".join(f"{count} x {error}" for error, count in self.errors.items())

    def milliseconds(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1000

    def note(self, call: Call, status: int, body: bytes, seconds: float) -> None:
        if status != 200:
            self.errors[f"status {status}"] += 1
            self.said.setdefault(status, body.decode(errors="replace"))
        elif not call.accepts(body):
            self.errors["wrong answer"] += 1
        else:
            self.answered += 1
            self.models.add(call.model)
            self.latencies.append(seconds)


class Connection(asyncio.Protocol):
    """Sends the next call as soon as the last one is answered, and closes when there is none."""

    def __init__(self, calls: Iterator[Call], load: Load) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._calls = calls
        self._load = load
        self._call: Call | None = None
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one without saying so.
        self._transport = cast(asyncio.Transport, transport)
        self._send_next()

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length_at = received.find(b"Content-Length: ") + 16
        body_end = head_end + 4 + int(received[length_at : received.find(b"\r\n", length_at)])
        if len(received) < body_end:
            return
        self._answered(int(received[9:12]), received[head_end + 4 : body_end])
        self._received = b""
        self._send_next()

    def connection_lost(self, error: Exception | None) -> None:
        if self._call is not None:
            self._load.errors["connection lost"] += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        """Gives up what is not answered."""
        self._call = None
        self._transport.close()

    def _answered(self, status: int, body: bytes) -> None:
        assert self._call is not None
        self._load.note(self._call, status, body, time.perf_counter() - self._sent_at)

    def _send_next(self) -> None:
        self._call = next(self._calls, None)
        if self._call is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._call.request)


async def send(address: Address, calls: Iterator[Call], load: Load, *, connections: int = CONNECTIONS) -> None:
    """Makes all these calls, so many at a time."""
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    opened: list[Connection] = []
    try:
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: Connection(calls, load), address.host, address.port)
            opened.append(connection)
        waiting = {connection.closed for connection in opened}
        while waiting:
            before = load.answered
            _, waiting = await asyncio.wait(waiting, timeout=_SECONDS_WITHOUT_AN_ANSWER)
            if waiting and load.answered == before:
                load.errors["no answer"] += len(waiting)
                break
    finally:
        load.seconds = time.monotonic() - started
        for connection in opened:
            connection.close()


def run(address: Address, calls: Iterator[Call]) -> Load:
    load = Load()
    uvloop.run(send(address, calls, load))
    return load
