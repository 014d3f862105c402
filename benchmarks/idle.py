"""Connections that mostly wait: the lane may cost them nothing that aiohttp's handler does not."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import models, servers
from benchmarks.offered import Phase, offer
from benchmarks.record import Record, closed_loop
from benchmarks.report import Row
from benchmarks.rounds import SECONDS, Progress, Rounds, by_turns
from benchmarks.servers import TIMEOUT, Address
from benchmarks.traffic import Call

_IDLE = 99
# Each of them sends one request a second.
_SLOW = 1000


class Times(NamedTuple):
    """Of the answers, in milliseconds."""

    p50: float
    p99: float
    problems: str

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms{self.problems and ': '}{self.problems}"


def run(directory: Path, progress: Progress) -> list[Row]:
    names = models.make_store(directory / "store", 1)
    calls = models.calls(names)
    for http in ("lane", "aiohttp"):
        (directory / http).mkdir()
    with (
        servers.mmserve(directory / "lane", directory / "store", http="lane") as ours,
        servers.mmserve(directory / "aiohttp", directory / "store", http="aiohttp") as theirs,
    ):
        for server in (ours, theirs):
            closed_loop(server.inference, calls, 1.0, connections=1)
        among_idle = by_turns(
            progress, lambda: _among_idle(theirs.inference, calls), lambda: _among_idle(ours.inference, calls)
        )
        slow = by_turns(progress, lambda: _slow(theirs.inference, calls), lambda: _slow(ours.inference, calls))
    return [
        *_rows(f"one connection among {_IDLE} idle ones", among_idle),
        *_rows(f"{_SLOW:,} connections, each with a request a second", slow),
    ]


def _rows(what: str, rounds: Rounds[Times]) -> list[Row]:
    failure = next((times.problems for times in (*rounds.reference, *rounds.ours) if times.problems), "")
    ratios = {
        "p50": rounds.median(lambda ours, theirs: ours.p50 / theirs.p50),
        "p99": rounds.median(lambda ours, theirs: ours.p99 / theirs.p99),
    }
    return [
        Row(f"idle: {what}: {percent} over aiohttp's", ratio, "x", required=1.0, failure=failure)
        for percent, ratio in ratios.items()
    ]


def _among_idle(address: Address, calls: list[Call]) -> Times:
    with ExitStack() as stack:
        for _ in range(_IDLE):
            idle = stack.enter_context(socket.create_connection((address.host, address.port), timeout=TIMEOUT))
            # One that was never asked anything is not what a client keeps.
            idle.sendall(calls[0].request)
            idle.recv(65536)
        return _times(closed_loop(address, calls, SECONDS, connections=1))


def _slow(address: Address, calls: list[Call]) -> Times:
    return _times(offer(address, calls, [Phase(_SLOW, SECONDS)], connections=_SLOW))


def _times(record: Record) -> Times:
    return Times(record.milliseconds(50), record.milliseconds(99), record.problems)
