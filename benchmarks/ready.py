"""How long `mmserve start` takes with a large store: its size may not matter."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks import models, servers
from benchmarks.report import Row
from benchmarks.rounds import Progress

ARCHIVES = 10_000
_DISTINCT = 20
_STARTS = 5


def run(directory: Path, progress: Progress) -> list[Row]:
    progress.doing(f"making a store of {ARCHIVES:,} archives")
    models.make_store(directory / "store", ARCHIVES, _DISTINCT)
    times = []
    for number in range(1, _STARTS + 1):
        progress.doing(f"start {number} of {_STARTS}")
        started = time.perf_counter()
        with servers.mmserve(directory, directory / "store"):
            times.append(time.perf_counter() - started)
    progress.say("starts: " + ", ".join(f"{seconds:.2f}" for seconds in times) + " s")
    what = f"ready: mmserve start with {ARCHIVES:,} archives in the store"
    return [Row(what, statistics.median(times), "s", required=2, aim=0.5)]
