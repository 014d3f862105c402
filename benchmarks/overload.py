"""Twice as many requests as a model can serve: as many as ever are served, in a time that its queue bounds."""

from __future__ import annotations

from pathlib import Path

from benchmarks import busy, coded, offered, servers
from benchmarks.offered import Phase
from benchmarks.record import Record
from benchmarks.report import Row, percentile
from benchmarks.rounds import Progress
from benchmarks.watch import Watch, serving

NAME = "overloaded"
QUEUE = 50
TIMES = 2
SECONDS = 30.0
# Of what can be served, for so long before and after the overload.
_LIGHT = 0.25
_LIGHT_SECONDS = 5.0
_RECOVERED_AFTER = 1.0
_REFUSED = 429
_GOODPUT = 0.9
# Over the time that the queue alone makes.
_ALLOWANCE = 1.2
# What the light load's 99th percentile may be afterwards: so many times what it was, or so many milliseconds more.
_LIGHT_TIMES = 2.0
_LIGHT_MORE = 10.0


def run(directory: Path, progress: Progress) -> list[Row]:
    busy.write(directory / "store", NAME, QUEUE)
    calls = [coded.call(NAME)]
    with servers.mmserve(directory, directory / "store") as server, Watch(server.management) as watching:
        server.wait_for_template()
        progress.doing("what can be served, before")
        before = busy.capacity(server.inference, calls)
        rate = TIMES * before
        progress.doing(f"{rate:,.0f} requests/s for {SECONDS:.0f} s")
        light = Phase(_LIGHT * before, _LIGHT_SECONDS)
        load = offered.offer(server.inference, calls, [light, Phase(rate, SECONDS), light])
        workers = len(serving(watching.describe(NAME)))
        progress.doing("what can be served, after")
        # Twice, for the host's changing mood.
        after = busy.capacity(server.inference, calls)
    progress.say(f"{before:,.0f}/s before and {after:,.0f}/s after; {workers} workers; offered {rate:,.0f}/s")
    begin = load.began + _LIGHT_SECONDS
    return [*_overload(progress, load, begin, (before + after) / 2, workers), _recovery(progress, load, begin)]


def _overload(progress: Progress, load: Record, begin: float, peak: float, workers: int) -> list[Row]:
    end = begin + SECONDS
    goodput = load.rate_between(begin, end)
    accepted = [seconds * 1000 for seconds in load.times(since=begin, until=end)]
    refused = [seconds * 1000 for seconds in load.response_times(_REFUSED)] or [0.0]
    # Behind all that may wait, and all that are being served.
    bound = (QUEUE + workers) / peak * 1000
    progress.say(
        f"{goodput:,.0f}/s served, {percentile(accepted, 50):.0f} ms (p50), {percentile(accepted, 99):.0f} ms (p99); "
        f"the queue alone makes up to {bound:.0f} ms; {len(refused):,} refused within {percentile(refused, 99):.1f} ms "
        f"(p99), {max(refused):.1f} ms (all); the client was late by {percentile(load.held, 99) * 1000:.1f} ms (p99)"
    )
    failure = load.problems_but(_REFUSED)
    return [
        Row(
            f"overload: served for {SECONDS:.0f} s at {TIMES} x what can be, over what can be",
            *(goodput / peak, "x", _GOODPUT),
            more_is_better=True,
            failure=failure,
        ),
        Row("overload: p99 of what is accepted", percentile(accepted, 99), "ms", bound * _ALLOWANCE, failure=failure),
        Row(
            "overload: answers that are neither right nor 429",
            *(load.errors.total() - load.counts[_REFUSED], "", 0),
            failure=failure,
        ),
    ]


def _recovery(progress: Progress, load: Record, begin: float) -> Row:
    end = begin + SECONDS
    recovered = end + _RECOVERED_AFTER
    before = _p99(load, load.began, begin)
    after = _p99(load, recovered, end + _LIGHT_SECONDS)
    progress.say(
        f"light load, p99: {before:.1f} ms before, {_p99(load, end, recovered):.1f} ms in the first second after"
    )
    refused = len(load.times(_REFUSED, since=recovered))
    return Row(
        f"overload: light load from {_RECOVERED_AFTER:.0f} s after it, p99 (before: {before:.1f} ms)",
        *(after, "ms", max(_LIGHT_TIMES * before, before + _LIGHT_MORE)),
        failure=f"{refused} still refused" if refused else "",
    )


def _p99(load: Record, since: float, until: float) -> float:
    """Of right answers, in milliseconds."""
    return percentile(load.times(since=since, until=until), 99) * 1000
