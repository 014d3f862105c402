"""How much memory one request or answer may take that is small itself: compressed, or sparse."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

# A worker is one of hundreds on its host. A caller who sends a megabyte that unpacks to more than an eighth
# of the memory there is means harm, or needs a host of another size.
_SHARE = 8
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@cache
def largest_expansion() -> int:
    """Bytes: an eighth of the memory of the host, or of the container where that has less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # No version 2 cgroup, or "max" in it: nothing below the host's own memory.
    with suppress(OSError, ValueError):
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return memory // _SHARE
