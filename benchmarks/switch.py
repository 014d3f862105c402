"""A thousand models asked evenly, then nine times in ten the same one, then evenly again, without a pause.

Workers that were right for one kind of traffic are wrong for the next: what counts is how soon the throughput is what
that kind of traffic has in the end.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from benchmarks import models, servers, traffic
from benchmarks.record import Record
from benchmarks.report import Row
from benchmarks.rounds import Progress

MODELS = 1000
# Of each kind of traffic.
SECONDS = 12.0
# After the switch: the time that is looked at, and the one that it is compared with.
SOON = (3.0, 5.0)
STEADY = (8.0, 12.0)
# Calls are drawn once and then made over and over: drawing costs as much as sending.
_DRAWN = 50_000
_REQUIRED = 0.9


class _Switching:
    """Calls of one kind after the other, for so long each. Remembers when each kind began."""

    def __init__(self, kinds: Sequence[Sequence[traffic.Call]]) -> None:
        self._kinds = kinds
        self.began: list[float] = []

    def __iter__(self) -> Iterator[traffic.Call]:
        for kind in self._kinds:
            self.began.append(time.perf_counter())
            end = self.began[-1] + SECONDS
            for call in itertools.cycle(kind):
                if time.perf_counter() >= end:
                    break
                yield call


def run(directory: Path, progress: Progress) -> list[Row]:
    progress.doing(f"packing {MODELS:,} models")
    calls = models.calls(models.make_store(directory / "store", MODELS, properties={}))
    draw = random.Random(0)
    even = draw.choices(calls, k=_DRAWN)
    # The one is no exception among the others.
    mostly = draw.choices([*calls, calls[0]], [0.1 / MODELS] * MODELS + [0.9], k=_DRAWN)
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()
        progress.doing(f"waking {MODELS:,} models")
        warming = traffic.run(server.inference, itertools.chain(calls, calls))
        progress.doing("even, 90 % to one, even")
        switching = _Switching([even, mostly, even])
        record = Record()
        uvloop.run(traffic.send(server.inference, iter(switching), record))
    failure = warming.problems or record.problems
    for kind, began in zip(("even", "90 % to one", "even again"), switching.began, strict=True):
        seconds = (record.rate_between(began + second, began + second + 1) for second in range(round(SECONDS)))
        progress.say(f"{kind}, requests/s in each second: " + ", ".join(f"{rate:,.0f}" for rate in seconds))
    return [
        _row("switch: even to 90 % to one", record, switching.began[1], failure),
        _row("switch: 90 % to one to even", record, switching.began[2], failure),
    ]


def _row(what: str, record: Record, began: float, failure: str) -> Row:
    soon, steady = (record.rate_between(began + since, began + until) for since, until in (SOON, STEADY))
    return Row(
        f"{what}, throughput {SOON[0]:.0f}-{SOON[1]:.0f} s after over that at {STEADY[0]:.0f}-{STEADY[1]:.0f} s",
        *(soon / steady if steady else 0.0, "x", _REQUIRED),
        more_is_better=True,
        failure=failure,
    )
