"""A model whose calls take CPU time, and how many of them it can serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import coded, record
from benchmarks.servers import Address, ServerError
from benchmarks.traffic import Call

# CPU time of a call: so much that many times too many calls do not ask too much of their client on the same host.
HANDLER_SECONDS = 0.01
# Not time: it is as much work however many others want the CPU.
_COMPUTES = f"""
end = time.process_time() + {HANDLER_SECONDS}
while time.process_time() < end:
    pass
"""
# Each time so long, after so long to get its workers.
_SECONDS = 4.0
_WARM_UP_SECONDS = 2.0
# More than there are workers, and fewer than any queue here takes.
_CONNECTIONS = 16


def write(store: Path, name: str, queue: int) -> None:
    coded.write(store, name, _COMPUTES, {"batch_size": "1", "job_queue_size": str(queue)})


def capacity(address: Address, calls: Sequence[Call]) -> float:
    """Right answers a second to as many callers as keep all its workers busy."""
    load = record.closed_loop(address, calls, _WARM_UP_SECONDS + _SECONDS, connections=_CONNECTIONS)
    if load.problems:
        raise ServerError(f"what it can serve cannot be measured: {load.problems}")
    return load.rate_between(load.began + _WARM_UP_SECONDS, load.began + _WARM_UP_SECONDS + _SECONDS)
