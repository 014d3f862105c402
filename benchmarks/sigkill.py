"""SIGKILL of the front under load, and the same start again: nothing is left of the one, all is known to the other."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks import left, models, record, traffic
from benchmarks.apart import apart
from benchmarks.foreground import foreground
from benchmarks.report import Row
from benchmarks.rounds import Progress
from benchmarks.servers import Address, MmServe

MODELS = 50
# What is said of a model at its registration and afterwards, in the words of `GET /models/NAME`.
_SETTINGS = ("modelUrl", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "maxIdleSeconds", "queueSize")
# Of load before the signal.
_SECONDS = 3.0
_GONE_AFTER = 1.0
_SERVING_WITHIN = 2.0
_LONGEST_WAIT = 10.0
# Between two looks at what is left, and between two tries to be served.
_PAUSE = 0.005


class Remains(NamedTuple):
    """How long until no process was left, and those that were after as long as is allowed."""

    seconds: float
    processes: list[str]


def run(directory: Path, progress: Progress) -> list[Row]:
    # Not in the store: what is served of them is known from their registration alone.
    packed = models.make_store(directory / "archives", MODELS, properties={})
    archives = [directory / "archives" / f"{name}.tar.gz" for name in packed]
    (store := directory / "store").mkdir()
    names = [f"tenant-{number:02}" for number in range(MODELS)]
    calls = models.calls(names)
    with foreground(directory, store) as front:
        progress.doing(f"registering {MODELS} models")
        for number, (name, archive) in enumerate(zip(names, archives, strict=True)):
            _register(front.server.management, number, name, archive)
        before = _settings(front.server, names)
        progress.doing("SIGKILL under load")
        with apart(record.closed_loop, front.server.inference, calls, _SECONDS + _GONE_AFTER) as client:
            time.sleep(_SECONDS)
            running = len(left.processes(front.server.marker))
            front.process.kill()
            remains = _remains(front.server.marker)
            load = client.result()
        front.process.wait()
    progress.doing("the same start again")
    with foreground(directory, store) as front:
        listening = time.perf_counter() - front.started
        serving = _answered(front.server.inference, names[0], calls[0]) - front.started
        after = _settings(front.server, names)
        answers = traffic.run(front.server.inference, iter(calls))
    progress.say(
        f"{load.answered:,} requests answered before; no process {remains.seconds * 1000:.0f} ms after the signal; "
        f"listening {listening:.2f} s after the new start, serving {serving:.2f} s after it"
    )
    changed = [name for name in names if name in after and after[name] != before[name]]
    if changed:
        progress.say(f"{changed[0]} had {before[changed[0]]}, has {after[changed[0]]}")
    return [
        Row(
            f"sigkill: of {running} processes, left after {_GONE_AFTER:.0f} s",
            *(len(remains.processes), "", 0),
            failure=", ".join(remains.processes[:3]),
        ),
        Row(
            f"sigkill: of {MODELS} registrations, missing or changed afterwards",
            *(MODELS - len(after) + len(changed), "", 0),
            failure=answers.problems,
        ),
        Row("sigkill: from the new start to the first right answer", serving, "s", _SERVING_WITHIN),
    ]


def _register(management: Address, number: int, name: str, archive: Path) -> None:
    """Says something else of each, of every third again later, and leaves half of them asleep."""
    workers = f"min_worker={number % 2}&max_worker={2 + number % 3}&max_idle_time={100 + number}"
    queue = f"batch_size={1 + number % 7}&job_queue_size={200 + number}"
    management.call("POST", f"/models?url={archive}&model_name={name}&{workers}&{queue}")
    if number % 3 == 0:
        management.call("PUT", f"/models/{name}?min_worker=1&job_queue_size={500 + number}")


def _settings(server: MmServe, names: list[str]) -> dict[str, dict[str, Any]]:
    """Of those that are known."""
    found = {}
    for name in names:
        status, body = server.management.exchange("GET", f"/models/{name}")
        if status == 200:
            described = msgspec.json.decode(body)
            found[name] = {setting: described[setting] for setting in _SETTINGS}
    return found


def _remains(marker: str) -> Remains:
    """Looks for as long as is allowed."""
    start = time.perf_counter()
    gone = math.nan
    while time.perf_counter() < start + _GONE_AFTER:
        if math.isnan(gone) and not left.processes(marker):
            gone = time.perf_counter() - start
        time.sleep(_PAUSE)
    return Remains(gone, left.processes(marker))


def _answered(address: Address, name: str, call: traffic.Call) -> float:
    """When a right answer came (time.perf_counter()); NaN if none does."""
    end = time.perf_counter() + _LONGEST_WAIT
    while time.perf_counter() < end:
        status, body = address.exchange("POST", f"/predictions/{name}", models.BODY)
        if status == 200 and call.accepts(body):
            return time.perf_counter()
        time.sleep(_PAUSE)
    return math.nan
