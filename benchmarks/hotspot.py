"""A sleeping model that everybody asks at once: how soon it has all the workers that it may have.

Its handler sleeps, so workers are what it lacks, and not CPUs.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from benchmarks import coded, record, servers, watch
from benchmarks.apart import apart
from benchmarks.report import Row
from benchmarks.rounds import Progress

NAME = "hot-spot"
WORKERS = 16
CONNECTIONS = 64
# Of the load, from the first request on.
SECONDS = 6.0
_HANDLER_SECONDS = 0.05
# Between two looks at the workers. A look costs the front about a millisecond with as many workers.
_PAUSE = 0.005


def run(directory: Path, progress: Progress) -> list[Row]:
    coded.write(directory / "store", NAME, f"time.sleep({_HANDLER_SECONDS})", {"maxWorkers": str(WORKERS)})
    calls = [coded.call(NAME)]
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()
        progress.doing(f"{CONNECTIONS} connections to a sleeping model")
        with (
            watch.Watch(server.management) as watching,
            apart(record.closed_loop, server.inference, calls, SECONDS, connections=CONNECTIONS) as client,
        ):
            looks = _look(watching, time.perf_counter() + SECONDS)
            load = client.result()
    most = max(workers for _, workers in looks)
    all_there = next((at - load.began for at, workers in looks if workers >= WORKERS), math.nan)
    half = load.began + SECONDS / 2
    progress.say(
        "workers that can answer: "
        + ", ".join(f"{workers} after {at - load.began:.2f} s" for at, workers in _changes(looks))
    )
    progress.say(
        f"{load.rate_between(half, half + SECONDS / 2):,.0f} requests/s in the second half, "
        f"of {WORKERS / _HANDLER_SECONDS:,.0f} at the best"
    )
    return [
        Row(
            f"hotspot: a sleeping model has {WORKERS} workers after",
            *(all_there, "s", 1.0),
            failure="" if most >= WORKERS else f"never more than {most}",
        ),
        Row(
            f"hotspot: of {len(load.came):,} requests refused or failed",
            *(load.errors.total(), "", 0),
            failure=load.problems,
        ),
    ]


def _look(watching: watch.Watch, end: float) -> list[tuple[float, int]]:
    """When there were how many workers that can answer."""
    looks = []
    while time.perf_counter() < end:
        workers = len(watch.serving(watching.describe(NAME)))
        looks.append((time.perf_counter(), workers))
        time.sleep(_PAUSE)
    return looks


def _changes(looks: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [look for before, look in zip([(0.0, 0), *looks], looks, strict=False) if look[1] != before[1]]
