"""What processes hold, as the kernel accounts for it."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

import psutil


class Memory(NamedTuple):
    """In bytes. `pss` is a process's share of what it uses with others, so that a sum counts every page once;
    `private` is what would be free without it.
    """

    pss: int
    private: int


def of(pid: int) -> Memory:
    """Raises ProcessLookupError or FileNotFoundError if the process has ended."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, size, _ = line.split()
        sizes[name] = int(size) * 1024
    return Memory(sizes["Pss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"])


def pss_of_tree(pid: int) -> int:
    """The sum over a process and all that descend from it. A thousand workers take about two seconds.

    Those that end while it is added up were there when it began, and count as much as the typical one. What is started
    meanwhile does not count. Otherwise workers that come and go would not be seen: there are as many at any moment.
    """
    found = []
    ended = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            found.append(of(process.pid).pss)
        except (ProcessLookupError, FileNotFoundError):
            ended += 1
    return sum(found) + (ended * round(statistics.median(found)) if found else 0)
