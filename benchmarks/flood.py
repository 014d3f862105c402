"""One model is offered ten times what it can serve, beside others with a light load: they must not feel it.

By turns quiet and flooded, so that a host's changing mood meets both.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from benchmarks import busy, bystanders, coded, offered, servers, traffic
from benchmarks.bystanders import Window
from benchmarks.record import OK, Record
from benchmarks.report import Row, percentile
from benchmarks.rounds import Progress

NAME = "flooded"
TIMES = 10
QUEUE = 20
ROUNDS = 2
# Of quiet, and of flood, in each round.
SECONDS = 10.0
# Until the flood's last answers are out of the way of the quiet that follows.
_SETTLE = 1.0
_REFUSED = 429
_SLOWEST_REFUSAL = 50.0
# A client that does not get rid of what is due has offered less than it says. Of its requests, in seconds.
_LONGEST_HELD = 0.1


def run(directory: Path, progress: Progress) -> list[Row]:
    calls = bystanders.make(directory / "store")
    busy.write(directory / "store", NAME, QUEUE)
    flooding = [coded.call(NAME)]
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()
        progress.doing("warming up")
        warming = traffic.run(server.inference, iter([*calls, *calls, *flooding]))
        capacity = busy.capacity(server.inference, flooding)
        rate = TIMES * capacity
        phases = [offered.Phase(0, SECONDS), offered.Phase(rate, SECONDS), offered.Phase(0, _SETTLE)] * ROUNDS
        progress.doing(f"{rate:,.0f}/s to a model that serves {capacity:,.0f}/s, by turns with nothing")
        seconds = sum(phase.seconds for phase in phases) + _SETTLE
        with bystanders.asking(server.inference, calls, seconds) as client:
            time.sleep(_SETTLE)
            flood = offered.offer(server.inference, flooding, phases)
            others = client.result()
    return _rows(progress, flood, others, capacity, warming.problems)


def _rows(progress: Progress, flood: Record, others: Record, capacity: float, failure: str) -> list[Row]:
    starts = [flood.began + round_ * (2 * SECONDS + _SETTLE) for round_ in range(ROUNDS)]
    alone = [Window(start, start + SECONDS) for start in starts]
    beside = [Window(start + SECONDS, start + 2 * SECONDS) for start in starts]
    refusals = [seconds * 1000 for seconds in flood.response_times(_REFUSED)]
    held = percentile(flood.held, 99)
    progress.say(
        f"the flood: {flood.counts[OK]:,} served, {flood.counts[_REFUSED]:,} refused, "
        f"{flood.counts[OK] / ROUNDS / SECONDS:,.0f}/s served of {capacity:,.0f}/s alone"
    )
    if refusals:
        progress.say(f"refused within {percentile(refusals, 99):.1f} ms (p99), {max(refusals):.1f} ms (all)")
    failure = failure or flood.problems_but(_REFUSED)
    if held > _LONGEST_HELD:
        failure = failure or f"the client was late by {held * 1000:.0f} ms"
    if not refusals:
        failure = failure or "nothing was refused"
    return [
        bystanders.row(f"flood: p99 of {bystanders.MODELS} others beside it", others, alone, beside),
        Row(
            f"flood: slowest of {len(refusals):,} refusals",
            *(max(refusals, default=math.nan), "ms", _SLOWEST_REFUSAL),
            failure=failure,
        ),
        Row(
            "flood: answers that are neither right nor 429",
            *(flood.errors.total() - len(refusals), "", 0),
            failure=failure,
        ),
    ]
