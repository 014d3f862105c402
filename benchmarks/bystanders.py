"""Models that have nothing to do with what goes wrong beside them: a light, steady load on them shows whether it hurts.

Their client is a process of its own, and the same before and during the trouble.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from benchmarks import models, offered, traffic
from benchmarks.apart import Apart, apart
from benchmarks.record import Record
from benchmarks.report import Row, percentile
from benchmarks.servers import Address

MODELS = 50
# Requests a second, to all of them together.
RATE = 100.0
# What their 99th percentile may become beside trouble: so many times what it was, or so many milliseconds more.
_TIMES = 2.0
_MORE = 10.0


class Window(NamedTuple):
    """Between these two times."""

    since: float
    until: float


def make(store: Path) -> list[traffic.Call]:
    """Fills a new store with them."""
    return models.calls(models.make_store(store, MODELS, properties={}))


def asking(address: Address, calls: Sequence[traffic.Call], seconds: float) -> AbstractContextManager[Apart[Record]]:
    return apart(offered.offer, address, calls, [offered.Phase(RATE, seconds)])


def row(what: str, record: Record, alone: Sequence[Window], beside: Sequence[Window]) -> Row:
    """Their 99th percentile beside trouble, and what it may be after what it was without."""
    before, during = _p99(record, alone), _p99(record, beside)
    shown = f"{what} (without: {before:.1f} ms)"
    return Row(shown, during, "ms", max(_TIMES * before, before + _MORE), failure=record.problems)


def _p99(record: Record, windows: Sequence[Window]) -> float:
    """Of all requests that were due in any of these, in milliseconds."""
    found = [seconds for window in windows for seconds in record.times(since=window.since, until=window.until)]
    return percentile(found, 99) * 1000
