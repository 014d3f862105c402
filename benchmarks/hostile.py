"""The lane against aiohttp's handler: the same streams of bytes to both, well formed, mutated and cut up.

Of each stream both have to make the same answers and close the same connections: a request that one of them saw and the
other did not would be one that a proxy and this server may disagree about. And every answer has to be one to a request
that was sent as a whole, whatever else was said.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import memory, models, servers
from benchmarks.hostile_answers import Address, Answers, ask
from benchmarks.hostile_streams import Stream, streams
from benchmarks.report import Row
from benchmarks.rounds import Progress
from benchmarks.servers import MmServe

STREAMS = 50_000
_SEED = 5
_AT_ONCE = 1000
# What a server is made of in the end is there after so many.
_WARM_UP = 5_000
# Answers to one stream may differ from one time to the next: a request that comes in the same read as what is no HTTP
# is not answered by aiohttp, and whether a connection is closed before the next bytes come depends on the moment. Where
# they do, some of so many more trials of each server have to have an outcome in common.
_TRIALS = (6, 200)
# Seconds that a server waits for the rest of a request, and for the next, in which only the end of half a request
# happens.
SETTINGS: dict[str, Any] = {"read_timeout": 1.5, "keepalive_timeout": 2.0}
# After which connections that were closed are let go of.
_SETTLE_SECONDS = 2.0


def differences(addresses: Sequence[Address], tried: Sequence[Stream]) -> list[str]:
    """What two servers answer differently, and what either of them should not answer; each in one line."""
    found: list[str] = []
    doubtful: list[_Tried] = []
    for stream, *both in zip(tried, *ask(addresses, tried), strict=True):
        found += [_line(stream, wrong) for answers in both if (wrong := answers.wrong(stream))]
        doubtful.append(_Tried(stream, [{answers} for answers in both]))
    for trials in _TRIALS:
        doubtful = [each for each in doubtful if each.problem]
        size = max(1, _AT_ONCE // trials)
        for start in range(0, len(doubtful), size):
            some = doubtful[start : start + size]
            again = ask(addresses, [each.stream for each in some for _ in range(trials)])
            for place, each in enumerate(some):
                for known, more in zip(each.outcomes, again, strict=True):
                    known.update(more[place * trials : (place + 1) * trials])
    return found + [_line(each.stream, each.problem) for each in doubtful if each.problem]


@dataclass(slots=True)
class _Tried:
    """A stream, and of each server all that it has answered to it."""

    stream: Stream
    outcomes: list[set[Answers]]

    @property
    def problem(self) -> str:
        one, other = self.outcomes
        if not one & other:
            return f"{one} and {other}"
        if not all(any(answers.is_enough(self.stream) for answers in known) for known in self.outcomes):
            return f"not all is answered: {self.outcomes}"
        return ""


def _line(stream: Stream, what: str) -> str:
    return f"{stream.content!r} cut at {list(stream.cuts)}: {what}"


def run(directory: Path, progress: Progress) -> list[Row]:
    # Two connections for each stream.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name in ("lane", "aiohttp"):
        (directory / name).mkdir()
    models.make_store(directory / "store", 3)
    found: list[str] = []
    with (
        servers.mmserve(directory / "lane", directory / "store", http="lane", **SETTINGS) as lane,
        servers.mmserve(directory / "aiohttp", directory / "store", http="aiohttp", **SETTINGS) as reference,
    ):
        addresses = [(server.inference.host, server.inference.port) for server in (lane, reference)]
        for server in (lane, reference):
            for name in ("shop-00002", "shop-00003"):
                server.inference.call("POST", f"/predictions/{name}", models.BODY)
        endless = streams(_SEED)
        before = None
        for count in range(0, STREAMS, _AT_ONCE):
            progress.doing(f"{count:,} of {STREAMS:,} streams, {len(found)} differences")
            found += differences(addresses, list(itertools.islice(endless, _AT_ONCE)))
            if count + _AT_ONCE == _WARM_UP:
                before = _held(lane)
        after = _held(lane)
    assert before is not None
    for difference in found[:20]:
        progress.say(difference)
    return [
        Row("hostile: streams tried", STREAMS, required=50_000, more_is_better=True),
        Row("hostile: differences between the lane and aiohttp's handler", len(found), required=0),
        Row("hostile: growth of the front's memory", (after[0] - before[0]) / 1e6, "MB", required=10),
        Row("hostile: growth of its descriptors", after[1] - before[1], required=0),
    ]


def _held(server: MmServe) -> tuple[int, int]:
    """Bytes and descriptors of the front."""
    time.sleep(_SETTLE_SECONDS)
    return memory.of(server.pid).private, psutil.Process(server.pid).num_fds()
