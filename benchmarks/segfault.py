"""A model that dies by SIGSEGV on one input in a hundred: exactly these requests fail, and say why."""

from __future__ import annotations

import random
from pathlib import Path

import uvloop

from benchmarks import coded, models, servers, traffic
from benchmarks.report import Row
from benchmarks.rounds import Progress

NAME = "crashing"
REQUESTS = 4000
POISONOUS = REQUESTS // 100
# As many requests again, to so many others.
NEIGHBOURS = 5
_CRASHES = """
if x < 0:
    ctypes.string_at(0)
"""
_FAILED = 424
_SIGNAL = b"SIGSEGV"
# A request that kills its worker is tried once more, on another.
_DEATHS_EACH = 2


class _Told(traffic.Load):
    """A load on which the poisonous calls have to fail, and in the right way."""

    def __init__(self, poison: traffic.Call) -> None:
        super().__init__()
        self._poison = poison
        self.told = 0
        self.otherwise = traffic.Load()

    def note(self, call: traffic.Call, status: int, body: bytes, seconds: float) -> None:
        if call is not self._poison:
            super().note(call, status, body, seconds)
        elif status == _FAILED and _SIGNAL in body:
            self.told += 1
        else:
            self.otherwise.errors[f"status {status}: {body.decode(errors='replace')[:200]}"] += 1


def run(directory: Path, progress: Progress) -> list[Row]:
    names = models.make_store(directory / "store", NEIGHBOURS, properties={})
    coded.write(directory / "store", NAME, _CRASHES, {})
    neighbours = models.calls(names)
    poison = coded.call(NAME, -1.0)
    harmless = [coded.call(NAME, float(x)) for x in range(10)]
    calls = [poison] * POISONOUS + harmless * ((REQUESTS - POISONOUS) // len(harmless))
    calls += neighbours * (REQUESTS // NEIGHBOURS)
    random.Random(0).shuffle(calls)
    load = _Told(poison)
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()
        warming = traffic.run(server.inference, iter([*neighbours, *harmless]))
        ended = server.status()["workersEnded"]
        progress.doing(f"{len(calls):,} requests, {POISONOUS} of which kill")
        uvloop.run(traffic.send(server.inference, iter(calls), load))
        deaths = server.status()["workersEnded"] - ended
    progress.say(
        f"{load.seconds:.1f} s, {deaths} workers ended, {load.milliseconds(50):.1f} ms (p50), "
        f"{load.milliseconds(99):.1f} ms (p99) of what was answered"
    )
    if load.otherwise.errors:
        progress.say(f"other answers to what kills: {load.otherwise.problems}")
    failure = warming.problems
    if deaths < load.told * _DEATHS_EACH:
        failure = failure or "what killed was not tried again"
    return [
        Row(
            f"segfault: of {POISONOUS} requests that kill, not answered 424 with SIGSEGV",
            *(POISONOUS - load.told, "", 0),
            failure=failure,
        ),
        Row(
            f"segfault: of {len(calls) - POISONOUS:,} others, failed",
            *(len(calls) - POISONOUS - load.answered, "", 0),
            failure=load.problems,
        ),
    ]
