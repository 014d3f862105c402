"""What the handlers read out of a model's serving.properties alike."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mmserve_worker.handlers.errors import LoadError

# More than any host has cores; a number beyond it is a slip.
_MOST_THREADS = 1024


def is_batch_size_said(options: Mapping[str, str]) -> bool:
    """Whether the owner asked for batches, and so vouches for a model of their own taking them."""
    size = options.get("batch_size") or options.get("max_dynamic_batch_size") or ""
    return size.isdecimal() and int(size) > 1


def thread_count(options: Mapping[str, str]) -> int:
    """Threads that one call of the model may use, as far as its library can be told.

    What the owner says, or else what the environment says to all native libraries, which is 1 in a worker.
    """
    said = options.get("option.threads")
    if said is None:
        said = os.environ.get("OMP_NUM_THREADS", "1")
        return int(said) if said.isdecimal() and int(said) else 1
    if not said.isdecimal() or not 1 <= int(said) <= _MOST_THREADS:
        raise LoadError(f"option.threads is {said}: expected a number from 1 to {_MOST_THREADS}")
    return int(said)
