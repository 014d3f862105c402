"""Sends streams of bytes to servers side by side, piece by piece, and reads what is answered until all is closed.

Every server reads each piece by itself: the next ones are sent when it has answered something that came later.
"""

from __future__ import annotations

import contextlib
import math
import re
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from benchmarks.hostile_streams import Stream
from benchmarks.servers import TIMEOUT, ServerError

Address = tuple[str, int]

_PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
# The end of whatever is still open.
_LAST = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_MOST_READ = 1 << 20
# What a request that has said none gets; those that a request has said are told as they are.
_OWN_ID = re.compile(rb"[0-9a-f]{16}-[0-9a-f]+")
# Each answer's own, and what aiohttp says of itself.
_UNCOMPARED = (b"date", b"server")
_NUMBER = re.compile(rb"[-+0-9.eE]+")
_TIMED_OUT = 408


class Answer(NamedTuple):
    status: int
    headers: frozenset[tuple[bytes, bytes]]
    body: bytes


class Answers(NamedTuple):
    """All that is said on one connection, but for that it was given up, which is a matter of time."""

    said: tuple[Answer, ...]
    # What comes behind them and is no answer.
    rest: bytes
    closed: bool

    def predictions(self) -> list[float]:
        found: list[float] = []
        for answer in self.said:
            if answer.status == 200 and answer.body.startswith(b'{"predictions"'):
                found += msgspec.json.decode(answer.body)["predictions"]
        return found

    def wrong(self, stream: Stream) -> str:
        """What must never be said to this stream, or nothing."""
        found = self.predictions()
        if not self.closed:
            return "the connection stays open"
        if self.rest:
            return f"what is no answer: {self.rest[:100]!r}"
        if stream.expected is None:
            sent = {*map(_float, _NUMBER.findall(stream.content)), 0.0}
            strange = [value for value in found if not any(_is_answer(value, number) for number in sent)]
            return f"answers to what was not asked: {strange}" if strange else ""
        rest = iter(stream.expected)
        in_order = all(any(abs(one - other) < 0.01 for other in rest) for one in found)
        return "" if in_order else f"{found} predicted instead of {list(stream.expected)}"

    def is_enough(self, stream: Stream) -> bool:
        """Whether all is answered that has to be."""
        return not stream.is_whole or stream.expected is None or len(self.predictions()) == len(stream.expected)


def _float(text: bytes) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    return math.nan


def _is_answer(value: float, number: float) -> bool:
    """Of one of the two models to this number."""
    return any(math.isclose(value, slope * number + 1.0, rel_tol=1e-9, abs_tol=1e-6) for slope in (1.0, 2.0))


def ask(servers: Sequence[Address], streams: Sequence[Stream]) -> list[list[Answers]]:
    """Of each server what it answers to each stream."""
    with ExitStack() as stack:
        opened = [[_connect(server, stack) for _ in streams] for server in servers]
        # The last ones: when they are answered, all have been accepted.
        others = [_connect(server, stack) for server in servers]
        _wait_for_all(others)
        pieces = [[*stream.pieces(), _LAST] for stream in streams]
        for turn in range(max(map(len, pieces))):
            for connections in opened:
                for connection, mine in zip(connections, pieces, strict=True):
                    if turn < len(mine):
                        _send(connection, mine[turn])
            _wait_for_all(others)
        return [list(map(_understood, *_read(connections))) for connections in opened]


def _connect(server: Address, stack: ExitStack) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(server, timeout=TIMEOUT))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send(connection: socket.socket, piece: bytes) -> None:
    # It may have been closed. What was said before can be read still.
    with contextlib.suppress(ConnectionError):
        connection.sendall(piece)


def _wait_for_all(others: Sequence[socket.socket]) -> None:
    """Until everything that came before was read: an event loop reads in the order in which something came."""
    # The second time for what the first one has set off.
    for _ in range(2):
        for other in others:
            other.sendall(_PING)
        for other in others:
            said = b""
            while _first(said) is None:
                some = other.recv(_MOST_READ)
                if not some:
                    raise ServerError("the server closes a connection that only pings")
                said += some


def _read(connections: Sequence[socket.socket]) -> tuple[list[bytes], list[bool]]:
    """What comes on each until it is closed, and whether it was."""
    said = {connection.fileno(): b"" for connection in connections}
    waiting = {connection.fileno(): connection for connection in connections}
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + TIMEOUT
    while waiting and time.monotonic() < end:
        for descriptor, _ in poll.poll(1000):
            try:
                some = waiting[descriptor].recv(_MOST_READ)
            except ConnectionError:
                some = b""
            said[descriptor] += some
            if not some:
                poll.unregister(descriptor)
                del waiting[descriptor]
    return [*said.values()], [descriptor not in waiting for descriptor in said]


def _understood(said: bytes, closed: bool) -> Answers:
    found = []
    while (answer := _first(said)) is not None:
        found.append(answer[0])
        said = said[answer[1] :]
    if found and found[-1].status == _TIMED_OUT:
        found.pop()
    return Answers(tuple(found), said, closed)


def _first(said: bytes) -> tuple[Answer, int] | None:
    """The first answer, and its length."""
    head, separator, rest = said.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if not separator or re.match(rb"HTTP/[01]\.[0-9] \d{3} ", lines[0]) is None:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    length = int(headers.get(b"content-length", b"0"))
    if len(rest) < length:
        return None
    for name in (b"x-request-id", b"x-amzn-requestid"):
        if _OWN_ID.fullmatch(headers.get(name, b"")):
            headers[name] = b""
    told = frozenset((name, value) for name, value in headers.items() if name not in _UNCOMPARED)
    return Answer(int(lines[0][9:12]), told, rest[:length]), len(head) + len(separator) + length
