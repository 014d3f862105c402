"""A random worker is killed ten times a second, under load: no request fails, and its model has another at once."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import time
from pathlib import Path

import psutil

from benchmarks import models, record, servers, traffic
from benchmarks.apart import apart
from benchmarks.left import Left, processes
from benchmarks.report import Row, percentile
from benchmarks.rounds import Progress
from benchmarks.watch import Watch, serving

MODELS = 20
SECONDS = 30.0
# Between two kills.
EVERY = 0.1
_RESTORED_WITHIN = 200.0
# Of the load before the first kill and after the last.
_MARGIN = 1.0
# Between two looks at the models that lack a worker.
_PAUSE = 0.003
# Between two kills of the same model, in seconds.
_IN_A_ROW = 0.5
# After the last kill, in seconds.
_LONGEST_RESTORATION = 10.0
# What is let go of only when the event loop next looks: connections that were closed, processes that ended.
_SETTLE_SECONDS = 2.0
# Always awake, and never more than one: every kill leaves its model with nothing.
_PROPERTIES = {"minWorkers": "1", "maxWorkers": "1"}


class Killer:
    """Kills workers, and notes how long each model then had fewer than its minimum."""

    def __init__(self, watching: Watch, names: list[str]) -> None:
        self._watching = watching
        self._names = names
        self._draw = random.Random(0)
        # By its id, since its pid may become another's.
        self._killed: set[int] = set()
        # Models that lack a worker, and since when: the last kill, if another hit the same model meanwhile.
        self._lacking: dict[str, float] = {}
        self.kills = 0
        # Of these, the ones that hit a model again which had just lost a worker: two can then take the same request.
        self.in_a_row = 0
        self._last: dict[str, float] = {}
        # In seconds.
        self.restored: list[float] = []

    @property
    def never_restored(self) -> list[str]:
        return list(self._lacking)

    def run(self, seconds: float) -> None:
        due = time.perf_counter()
        end = due + seconds
        while (now := time.perf_counter()) < end or (self._lacking and now < end + _LONGEST_RESTORATION):
            if due <= now < end:
                due += EVERY
                self._kill()
            for name in list(self._lacking):
                self._look(name)
            time.sleep(_PAUSE)

    def _kill(self) -> None:
        """Whatever the worker is doing, if it is only just coming up too."""
        for name in self._draw.sample(self._names, len(self._names)):
            workers = [worker for worker in self._watching.describe(name)["workers"] if worker["pid"]]
            workers = [worker for worker in workers if worker["id"] not in self._killed]
            if workers:
                break
        else:
            return
        victim = self._draw.choice(workers)
        # It may be ending by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim["pid"], signal.SIGKILL)
        self.kills += 1
        self._killed.add(victim["id"])
        now = time.perf_counter()
        self.in_a_row += now - self._last.get(name, -math.inf) < _IN_A_ROW
        self._last[name] = self._lacking[name] = now

    def _look(self, name: str) -> None:
        described = self._watching.describe(name)
        there = [worker for worker in serving(described) if worker["id"] not in self._killed]
        if len(there) >= described["minWorkers"]:
            self.restored.append(time.perf_counter() - self._lacking.pop(name))


def run(directory: Path, progress: Progress) -> list[Row]:
    names = models.make_store(directory / "store", MODELS, properties=_PROPERTIES)
    calls = models.calls(names)
    left = Left(directory)
    with servers.mmserve(directory, directory / "store") as server:
        progress.doing("warming up")
        warming = traffic.run(server.inference, iter(calls * 10))
        with Watch(server.management) as watching:
            killer = Killer(watching, names)
            watching.wait_until_served(names, 1)
            before = _descriptors(server.pid)
            progress.doing(f"a kill every {EVERY * 1000:.0f} ms for {SECONDS:.0f} s")
            with apart(record.closed_loop, server.inference, calls, SECONDS + 2 * _MARGIN) as client:
                time.sleep(_MARGIN)
                killer.run(SECONDS)
                load = client.result()
            watching.wait_until_served(names, 1)
            after = _descriptors(server.pid)
        running = len(processes(server.marker))
    remains = left.of(server.marker)
    milliseconds = [seconds * 1000 for seconds in killer.restored]
    progress.say(f"{killer.kills} kills, {killer.in_a_row} of the same model twice in {_IN_A_ROW} s")
    half, late = percentile(milliseconds, 50), percentile(milliseconds, 99)
    progress.say(f"a worker again after {half:.0f} ms (p50), {late:.0f} ms (p99)")
    progress.say(f"answers after {load.milliseconds(50):.1f} ms (p50), {load.milliseconds(99):.1f} ms (p99)")
    for status, said in load.said.items():
        progress.say(f"the first {status}: {said}")
    failure = warming.problems or load.problems
    missing = f"{len(killer.never_restored)} models never had it again" if killer.never_restored else ""
    return [
        Row(
            f"kills: {killer.kills} kills, failed requests of {len(load.came):,}",
            load.errors.total(),
            required=0,
            failure=failure,
        ),
        Row(
            "kills: minWorkers again, the longest",
            max(milliseconds, default=math.nan),
            "ms",
            _RESTORED_WITHIN,
            failure=missing,
        ),
        Row(
            f"kills: of {running} processes and what they use, left",
            len(remains),
            required=0,
            failure=", ".join(remains[:3]),
        ),
        Row("kills: more descriptors in the front than before", after - before, required=0),
    ]


def _descriptors(pid: int) -> int:
    time.sleep(_SETTLE_SECONDS)
    return int(psutil.Process(pid).num_fds())
