"""A thousand models on this host, to look at: `python -m benchmarks.demo`.

Trains and packages them in a temporary directory, serves that directory by `mmserve start`, asks in the ways in which
many models are asked, checks every answer, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import fleet, memory, report, servers, traffic
from benchmarks.servers import MmServe, ServerError
from benchmarks.traffic import Call, Load

# Seconds between two looks at a load that runs.
_TICK = 0.5
# Calls are drawn once and then made over and over: drawing costs as much as sending.
_DRAWN = 50_000


@dataclass(frozen=True, slots=True)
class Pattern:
    """A kind of traffic. Without `seconds` it ends with its calls."""

    name: str
    calls: Iterator[Call]
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    pattern: str
    load: Load
    cold_starts: int
    workers: int
    memory: int


def patterns(calls: Sequence[Call], seconds: float) -> Iterator[Pattern]:
    draw = random.Random(0)

    def mostly(favourites: Sequence[Call]) -> Iterator[Call]:
        """Nine in ten to the favourites, evenly; the others to any."""
        rest = 0.1 / len(calls)
        chosen = draw.choices(
            [*calls, *favourites], [rest] * len(calls) + [0.9 / len(favourites)] * len(favourites), k=_DRAWN
        )
        return itertools.cycle(chosen)

    few = draw.sample(calls, max(1, len(calls) // 100))
    yield Pattern("each for the first time", iter(draw.sample(calls, len(calls))))
    yield Pattern("evenly over all", itertools.cycle(draw.choices(calls, k=_DRAWN)), seconds)
    yield Pattern("90 % to one", mostly(calls[-1:]), seconds)
    yield Pattern(f"90 % to {len(few)} of {len(calls):,}", mostly(few), seconds)


class Watch:
    """Shows how the demo is going: on a terminal while it goes, elsewhere line by line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(20),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str, total: float) -> TaskID:
        return self._progress.add_task(what, total=total, now="")

    def update(self, task: TaskID, completed: float, now: str) -> None:
        self._progress.update(task, completed=completed, now=now)

    def end(self, task: TaskID, what: str) -> None:
        shown = next(found for found in self._progress.tasks if found.id == task)
        self._progress.update(task, completed=shown.total, now=what)
        self._progress.stop_task(task)
        if not self._console.is_terminal:
            self._console.print(f"{shown.description}: {what}")


def _train(store: Path, count: int, watch: Watch) -> list[Call]:
    task = watch.begin("training and packaging", count)
    calls = []
    for call in fleet.train(store, count):
        calls.append(call)
        watch.update(task, len(calls), f"{len(calls):,} models")
    watch.end(task, f"{count:,} models")
    return calls


async def _drive(server: MmServe, pattern: Pattern, models: int, connections: int, watch: Watch) -> Outcome:
    task = watch.begin(pattern.name, pattern.seconds or models)
    before = server.status()["workersStarted"]
    load = Load()
    started = time.monotonic()
    calls = pattern.calls
    if pattern.seconds is not None:
        end = started + pattern.seconds
        calls = itertools.takewhile(lambda _: time.monotonic() < end, calls)
    sending = asyncio.create_task(traffic.send(server.inference, calls, load, connections=connections))
    while not (await asyncio.wait([sending], timeout=_TICK))[0]:
        elapsed = time.monotonic() - started
        workers = (await asyncio.to_thread(server.status))["workers"]
        now = f"{load.answered / elapsed:,.0f} requests/s, {workers:,} workers awake, {load.errors.total()} errors"
        watch.update(task, elapsed if pattern.seconds else load.answered, now)
    sending.result()
    status = server.status()
    watch.end(task, f"{load.rate:,.0f} requests/s, {load.problems or 'no errors'}")
    held = memory.pss_of_tree(server.pid)
    return Outcome(pattern.name, load, status["workersStarted"] - before, status["workers"], held)


def _table(outcomes: Sequence[Outcome]) -> Table:
    shown = Table("pattern", "requests/s", "p50", "p99", "errors", "cold starts", "workers", "memory")
    for column in shown.columns[1:]:
        column.justify = "right"
    for outcome in outcomes:
        load = outcome.load
        shown.add_row(
            *(
                outcome.pattern,
                f"{load.rate:,.0f}",
                f"{load.milliseconds(50):.1f} ms",
                f"{load.milliseconds(99):.1f} ms",
            ),
            *(f"{load.errors.total()}", f"{outcome.cold_starts:,}", f"{outcome.workers:,}"),
            f"{outcome.memory / report.GIB:.2f} GiB",
        )
    return shown


@click.command()
@click.option("--models", type=click.IntRange(1), default=1000, show_default=True, help="How many models.")
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="For each traffic pattern."
)
@click.option(
    "--connections", type=click.IntRange(1), default=traffic.CONNECTIONS, show_default=True, help="At a time."
)
def main(models: int, seconds: float, connections: int) -> None:
    """Shows a thousand models being served on this host, and leaves nothing behind."""
    servers.clean_up_when_told_to_end()
    console = report.console()
    console.print(report.machine())
    try:
        with tempfile.TemporaryDirectory(prefix="mmserve-demo-") as name, Watch(console) as watch:
            directory = Path(name)
            calls = _train(directory / "store", models, watch)
            task = watch.begin("mmserve start", 1)
            started = time.monotonic()
            with servers.mmserve(directory, directory / "store") as server:
                answers = time.monotonic() - started
                server.wait_for_template()
                watch.end(task, f"answers after {answers:.1f} s, models after {time.monotonic() - started:.1f} s")
                outcomes = [
                    uvloop.run(_drive(server, pattern, models, connections, watch))
                    for pattern in patterns(calls, seconds)
                ]
                task = watch.begin("mmserve stop", 1)
            watch.end(task, "nothing is left")
    except ServerError as error:
        raise click.ClickException(str(error)) from error
    console.print(_table(outcomes))
    wrong = "; ".join(f"{outcome.pattern}: {outcome.load.problems}" for outcome in outcomes if outcome.load.problems)
    if wrong:
        raise click.ClickException(wrong)
    console.print(
        f"{models:,} models, each in a process of its own, gave only right answers. "
        "Now your own: mmserve start --model-store DIRECTORY"
    )


if __name__ == "__main__":
    main()
