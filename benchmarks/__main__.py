"""Runs the benchmarks: `python -m benchmarks [NAME ...]`. A figure that misses what is required is a measurement too:
the exit status says only whether everything could be measured.
"""

from __future__ import annotations

import http.client
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import (
    budget,
    cold,
    flood,
    growth,
    handler,
    hang,
    hostile,
    hot,
    hotspot,
    idle,
    kills,
    large,
    latency,
    mosec,
    overload,
    path,
    ready,
    report,
    rounds,
    s3,
    segfault,
    servers,
    sigkill,
    sigterm,
    simulation,
    switch,
    thousand,
    wrk,
)
from benchmarks.report import Row

BENCHMARKS: dict[str, Callable[[Path, rounds.Progress], list[Row]]] = {
    "handler": handler.run,
    "path": path.run,
    "hot": hot.run,
    "latency": latency.run,
    "mosec": mosec.run,
    "large": large.run,
    "cold": cold.run,
    "ready": ready.run,
    # One server for both.
    "thousand": thousand.run,
    "memory": thousand.run,
    "growth": growth.run,
    # What the supervisor is for.
    "hotspot": hotspot.run,
    "switch": switch.run,
    "flood": flood.run,
    "kills": kills.run,
    "segfault": segfault.run,
    "hang": hang.run,
    "sigterm": sigterm.run,
    "sigkill": sigkill.run,
    "budget": budget.run,
    "overload": overload.run,
    # What the lane may not cost.
    "hostile": hostile.run,
    "idle": idle.run,
    # What somebody brings along who comes from SageMaker.
    "s3": s3.run,
    # The same, thought through: a day without a process.
    "simulation": simulation.run,
}


class Shown:
    """Progress of one benchmark: a line that moves on a terminal, plain lines elsewhere."""

    def __init__(self, progress: Progress, task: TaskID, name: str) -> None:
        self._progress = progress
        self._task = task
        self._name = name

    def doing(self, what: str) -> None:
        self._progress.update(self._task, description=f"{self._name}: {what}")

    def say(self, what: str) -> None:
        self._progress.console.print(f"{self._name}: {what}")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(BENCHMARKS)))
def main(names: tuple[str, ...]) -> None:
    """Runs the named benchmarks, or all."""
    if not wrk.is_there():
        raise click.ClickException("the benchmarks need wrk: apt-get install wrk")
    servers.clean_up_when_told_to_end()
    console = report.console()
    console.print(report.machine())
    started = time.monotonic()
    found: list[Row] = []
    broken = False
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for run in dict.fromkeys(BENCHMARKS[name] for name in names or BENCHMARKS):
            name = run.__module__.rpartition(".")[2]
            task = progress.add_task(name)
            try:
                with tempfile.TemporaryDirectory(prefix="mmserve-bench-") as directory:
                    found += run(Path(directory), Shown(progress, task, name))
            except (servers.ServerError, OSError, http.client.HTTPException) as error:
                # Also what a client sees of a server that dies. The others can still be measured.
                broken = True
                console.print(f"{name}: {str(error) or type(error).__name__}", markup=False)
                found.append(Row(name, math.nan, failure="see above"))
            console.print(f"{name}: done, load {report.load():.1f}")
            progress.remove_task(task)
    console.print(report.table(found))
    console.print(f"{time.monotonic() - started:.0f} s, load {report.load():.1f}")
    sys.exit(broken)


if __name__ == "__main__":
    main()
