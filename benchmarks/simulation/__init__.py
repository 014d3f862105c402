"""A day of a host with 5,000 models, without a process: what decides is the server's own, and is checked at every step.

traffic ──► dispatching ──► supervising          the server's decisions, on a clock that nobody waits for
                 └──────────────┴──► checker     what has to hold, by books of its own
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.report import Row, percentile
from benchmarks.rounds import Progress
from benchmarks.simulation import scenarios
from benchmarks.simulation.checker import Checker
from benchmarks.simulation.simulation import Rules, Simulation
from benchmarks.simulation.stand_ins import LeastRecentlyUsed

MODELS = 5000
HOURS = 24
_SEED = 1


def run(directory: Path, progress: Progress) -> list[Row]:
    simulation = scenarios.everyday(MODELS, _SEED)
    began = time.perf_counter()
    for hour in range(HOURS):
        progress.doing(f"hour {hour + 1} of {HOURS}, {simulation.clock.steps:,} events so far")
        simulation.run(scenarios.HOUR)
    checker = simulation.finish()
    progress.say(f"{simulation.clock.steps:,} events in {time.perf_counter() - began:.0f} s")
    _tell(progress, simulation, checker)
    progress.doing("rules of eviction")
    lru = Rules(idle=LeastRecentlyUsed)
    scan, plain_scan = scenarios.hits_of_a_scan(), scenarios.hits_of_a_scan(lru)
    popular, plain_popular = scenarios.hits_of_popular_ones(), scenarios.hits_of_popular_ones(lru)
    progress.say(f"plain LRU: {plain_scan:.1%} of the scan, {plain_popular:.1%} of the popular ones")
    failure = "; ".join(f"{what}, {example}" for what, example in checker.examples.items())
    what = f"hits of a cyclic scan over {scenarios.SCANNED:,} models with room for {scenarios.ROOM}"
    return [
        Row(
            f"simulation: violations of invariants in {HOURS} h, {MODELS:,} models",
            sum(checker.violations.values()),
            required=0,
            failure=failure,
        ),
        Row(f"simulation: {what}", 100 * scan, "%", more_is_better=True),
        Row("simulation: hits of as many by Zipf's law, over those of plain LRU", popular / plain_popular),
    ]


def _tell(progress: Progress, simulation: Simulation, checker: Checker) -> None:
    counts = simulation.supervisor.counts
    progress.say(
        f"{checker.requests:,} requests, {checker.hits / checker.requests:.1%} of which found a worker; refused: "
        f"{dict(checker.refused_requests)}"
    )
    progress.say(
        f"{counts.starts:,} starts, {counts.evictions:,} evictions, {counts.idle_stops:,} stops of idle ones, "
        f"{counts.deaths:,} deaths; {checker.useless_starts:,} workers have answered nothing"
    )
    progress.say(
        f"p99 of the wait of those that found no queue {percentile(checker.waits, 99) * 1000:.0f} ms; the longest wait "
        f"was {checker.slowest:.0%} of what it might have been; memory up to {checker.highest_part:.1%} of the budget"
    )
