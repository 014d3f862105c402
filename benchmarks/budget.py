"""A thousand models that take turns in less memory than they need: what the server really holds, and why it evicts."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import memory, models, record, servers
from benchmarks.apart import apart
from benchmarks.record import Record
from benchmarks.report import Row
from benchmarks.rounds import Progress
from benchmarks.servers import Address, MmServe

MODELS = 1000
# Bytes for everything that the server runs. All models awake would hold about six times as much.
BUDGET = 1_000_000_000
SECONDS = 30.0
_REQUIRED = 1.05
_DRAWN = 50_000
# Adding up the memory takes a core: so much of the time. A look takes about half a second at a few hundred workers.
_SHARE = 0.5
# The most that one answer of `GET /events` has.
_EVENTS = 1000


def run(directory: Path, progress: Progress) -> list[Row]:
    progress.doing(f"packing {MODELS:,} models")
    calls = models.calls(models.make_store(directory / "store", MODELS, properties={}))
    even = random.Random(0).choices(calls, k=_DRAWN)
    with servers.mmserve(directory, directory / "store", memory_budget=BUDGET) as server:
        server.wait_for_template()
        progress.doing(f"{MODELS:,} models in {BUDGET / 1e6:,.0f} MB")
        evicted = Evictions(server.management)
        with apart(record.closed_loop, server.inference, even, SECONDS) as client:
            held = _sample(server, evicted, time.perf_counter() + SECONDS)
            load = client.result()
        evicted.read()
        workers = server.status()["workers"]
    return _rows(progress, load, held, evicted.events, workers)


class Evictions:
    """The events that tell of them, read as they come: the server keeps only the newest of all events."""

    def __init__(self, management: Address) -> None:
        self._management = management
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def read(self) -> None:
        while True:
            path = f"/events?after={self._last}&limit={_EVENTS}"
            answer = msgspec.json.decode(self._management.call("GET", path))
            self.events += [event for event in answer["events"] if event["kind"] == "evicted"]
            if not answer["events"]:
                return
            self._last = answer["events"][-1]["id"]


def _sample(server: MmServe, evicted: Evictions, end: float) -> list[int]:
    """What all processes held, at each look."""
    held = []
    while (began := time.perf_counter()) < end:
        held.append(memory.pss_of_tree(server.pid))
        evicted.read()
        time.sleep((time.perf_counter() - began) * (1 / _SHARE - 1))
    return held


def _rows(
    progress: Progress, load: Record, held: list[int], evictions: list[dict[str, Any]], workers: int
) -> list[Row]:
    progress.say(
        f"{load.rate_between(load.began, load.began + SECONDS):,.0f} requests/s, {load.milliseconds(50):.1f} ms (p50), "
        f"{load.milliseconds(99):.1f} ms (p99); {workers} workers in the end, {len(load.models):,} models answered"
    )
    progress.say(f"PSS at each of {len(held)} looks: " + ", ".join(f"{size / 1e6:,.0f}" for size in held) + " MB")
    if evictions:
        progress.say(f"the last eviction: {evictions[-1]['model']}: {evictions[-1]['reason']}")
    unexplained = sum(not event["reason"] for event in evictions)
    return [
        Row(f"budget: highest PSS of all over {BUDGET / 1e6:,.0f} MB", max(held) / BUDGET, "x", _REQUIRED),
        Row(f"budget: of {len(load.came):,} requests failed", load.errors.total(), required=0, failure=load.problems),
        Row(
            "budget: evictions, each with its reason",
            *(len(evictions), "", 1),
            more_is_better=True,
            failure=f"{unexplained} without" if unexplained else "",
        ),
    ]
