"""What benchmarks find, and how it is shown."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

MIB = 1024 * 1024
GIB = 1024 * MIB
# Where no terminal says how wide lines may be.
_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `more_is_better` says which side of `required` and `aim` is the good one."""

    what: str
    measured: float
    unit: str = ""
    required: float | None = None
    aim: float | None = None
    more_is_better: bool = False
    # Why the figure says nothing: an error under load makes any throughput.
    failure: str = ""

    @property
    def verdict(self) -> str:
        if self.failure:
            return f"[bold red]FAILED: {self.failure}[/]"
        if self.required is None:
            return ""
        if not self._reaches(self.required):
            return "[bold red]MISSED[/]"
        return "[bold green]aim[/]" if self.aim is not None and self._reaches(self.aim) else "[green]yes[/]"

    def cells(self) -> tuple[str, ...]:
        sign = "≥" if self.more_is_better else "≤"
        limits = ("" if limit is None else f"{sign} {self._figure(limit)}" for limit in (self.required, self.aim))
        return (self.what, self._figure(self.measured), *limits, self.verdict)

    def _figure(self, value: float) -> str:
        if math.isnan(value):
            return "-"
        places = 0 if not value % 1 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        digits = f"{value:,.{places}f}"
        return f"{digits} {self.unit}".rstrip()

    def _reaches(self, limit: float) -> bool:
        return self.measured >= limit if self.more_is_better else self.measured <= limit


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; NaN if there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


def console() -> Console:
    found = Console(highlight=False, soft_wrap=True)
    return found if found.is_terminal else Console(width=_WIDTH, highlight=False, soft_wrap=True)


def table(rows: Sequence[Row]) -> Table:
    shown = Table("what", "measured", "required", "aim", "ok", title="mmserve benchmarks", title_justify="left")
    for column in shown.columns[1:4]:
        column.justify = "right"
    for row in rows:
        shown.add_row(*row.cells())
    return shown


def machine() -> str:
    """What the figures were measured on, in two lines."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "numpy", "aiohttp", "uvloop"))
    return (
        f"{_cpu()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores usable, "
        f"{psutil.virtual_memory().total / GIB:.0f} GiB, load {load():.1f}\n"
        f"Linux {platform.release()}, CPython {platform.python_version()}, {libraries}"
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    # ARM's says no name.
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def load() -> float:
    """Processes that wanted to run, averaged over the last minute: more than ours, and the figures are noisy."""
    return os.getloadavg()[0]
