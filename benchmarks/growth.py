"""What stays in the front after many requests and many workers that came and went: nothing should."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import memory, models, servers, traffic
from benchmarks.hot import BODY
from benchmarks.report import Row
from benchmarks.rounds import Progress
from benchmarks.servers import MmServe

MODELS = 250
REQUESTS = 100_000
STARTS = 1000
_CYCLES = STARTS // MODELS
_WARM_UP_REQUESTS = 5000
# What is let go of only when the event loop next looks: connections that were closed, processes that ended.
_SETTLE_SECONDS = 2.0


class Held(NamedTuple):
    """What the front holds."""

    memory: int
    descriptors: int


def run(directory: Path, progress: Progress) -> list[Row]:
    names = models.make_store(directory / "store", MODELS)
    predict = [traffic.call(name, f"/predictions/{name}", BODY.encode()) for name in names]
    scale_to_zero = [traffic.call(name, f"/models/{name}?min_worker=0", b"", method="PUT") for name in names]
    problems: list[str] = []
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()

        def cycle(what: str, requests: int) -> None:
            """Every model wakes, answers its part of the requests and goes to sleep."""
            progress.doing(f"{what}: {requests:,} requests to {MODELS} models")
            asked: Iterator[traffic.Call] = itertools.islice(itertools.cycle(predict), requests)
            problems.append(traffic.run(server.inference, asked).problems)
            problems.append(traffic.run(server.management, iter(scale_to_zero)).problems)

        cycle("warming up", _WARM_UP_REQUESTS)
        before, segments = _held(server), set(os.listdir("/dev/shm"))
        started = server.status()["workersStarted"]
        for number in range(1, _CYCLES + 1):
            cycle(f"cycle {number} of {_CYCLES}", REQUESTS // _CYCLES)
        starts = server.status()["workersStarted"] - started
        after, left = _held(server), set(os.listdir("/dev/shm")) - segments
    progress.say(
        f"{starts:,} workers started; the front held {before.memory / 1e6:.1f} MB and {before.descriptors} "
        f"descriptors, then {after.memory / 1e6:.1f} MB and {after.descriptors}"
    )
    failure = next(filter(None, problems), "")
    if starts < STARTS:
        failure = failure or f"{starts} workers started, not {STARTS}"
    grown = (after.memory - before.memory) / 1e6
    what = f"growth: memory of the front by {REQUESTS:,} requests and {STARTS:,} worker starts"
    return [
        Row(what, grown, "MB", 20, failure=failure),
        Row("growth: its descriptors", after.descriptors - before.descriptors, required=0, failure=failure),
        Row("growth: entries of /dev/shm", len(left), required=0, failure=failure),
    ]


def _held(server: MmServe) -> Held:
    time.sleep(_SETTLE_SECONDS)
    return Held(memory.of(server.pid).private, psutil.Process(server.pid).num_fds())
