"""A client that can tell what a server has lost from what it never took.

A server that stops closes connections that clients are just about to use. A request that then gets no answer is lost
if the server had read it, and not if it was still on its way. TCP tells them apart: a socket that is closed with bytes
unread, or that bytes reach after it was closed, answers with a reset; one whose bytes were all read ends in order.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.servers import TIMEOUT, Address
from benchmarks.traffic import Call

# Between two tries after a refusal, in seconds.
_PAUSE = 0.01
# More than a reset takes on one host.
_TIME_FOR_A_RESET = 0.2
# linux/tcp_states.h: what a reset leaves a socket in. After an orderly end it is CLOSE_WAIT.
_TCP_CLOSE = 7


class Lost(NamedTuple):
    """A request that the server took and did not answer, and when it was sent (time.perf_counter())."""

    what: str
    sent: float


@dataclass(slots=True)
class Testimony:
    """What one client has seen. `wrong` says what with how often."""

    answered: int = 0
    # Told to go elsewhere (503).
    refused: int = 0
    # Sent while the server was closing the connection, and never read by it.
    crossed: int = 0
    lost: list[Lost] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    # When the last right answer came (time.perf_counter()).
    last: float = 0.0


def ask_until_refused(address: Address, calls_of_each: Sequence[Sequence[Call]]) -> list[Testimony]:
    """A client for each of these, who makes its calls in turn until nobody listens any more."""
    with ThreadPoolExecutor(len(calls_of_each)) as clients:
        return list(clients.map(lambda calls: _ask_until_refused(address, calls), calls_of_each))


def _ask_until_refused(address: Address, calls: Sequence[Call]) -> Testimony:
    seen = Testimony()
    endless = itertools.cycle(calls)
    while True:
        try:
            connection = socket.create_connection((address.host, address.port), timeout=TIMEOUT)
        except (ConnectionRefusedError, ConnectionResetError):
            return seen
        with connection:
            while _ask(connection, next(endless), seen):
                pass


def _ask(connection: socket.socket, call: Call, seen: Testimony) -> bool:
    """Says whether the connection can be used again."""
    received = b""
    sent = time.perf_counter()
    try:
        connection.sendall(call.request)
        while (end := _end(received)) is None or len(received) < end:
            data = connection.recv(65536)
            if not data:
                break
            received += data
    except (BrokenPipeError, ConnectionResetError):
        if received:
            seen.lost.append(Lost("answer cut off", sent))
        else:
            seen.crossed += 1
        return False
    except TimeoutError:
        seen.lost.append(Lost("no answer", sent))
        return False
    if end is None or len(received) < end:
        if received:
            seen.lost.append(Lost("answer cut off", sent))
        elif _was_read(connection):
            seen.lost.append(Lost("read, and not answered", sent))
        else:
            seen.crossed += 1
        return False
    head, _, body = received.partition(b"\r\n\r\n")
    _note(int(head[9:12]), body, call, seen)
    return b"connection: close" not in head.lower()


def _end(received: bytes) -> int | None:
    """Where an answer ends, once its head is there."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length_at = received.find(b"Content-Length: ") + 16
    return head_end + 4 + int(received[length_at : received.find(b"\r\n", length_at)])


def _was_read(connection: socket.socket) -> bool:
    """Whether the other side, which has ended the connection without a word, had read all that was sent to it."""
    time.sleep(_TIME_FOR_A_RESET)
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE


def _note(status: int, body: bytes, call: Call, seen: Testimony) -> None:
    if status == 503:
        seen.refused += 1
        time.sleep(_PAUSE)
    elif status != 200:
        seen.wrong[f"status {status}"] += 1
    elif not call.accepts(body):
        seen.wrong["wrong answer"] += 1
    else:
        seen.answered += 1
        seen.last = time.perf_counter()
