"""A model that hangs on one input: that request is told in time, the model serves again, and others do not notice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks import bystanders, coded, servers, traffic
from benchmarks.bystanders import Window
from benchmarks.report import Row
from benchmarks.rounds import Progress

NAME = "hanging"
PREDICT_TIMEOUT = 2
HANGS = 5
_HANGS = """
if x < 0:
    time.sleep(3600)
"""
# One worker: while it hangs the model has none.
_PROPERTIES = {"maxWorkers": "1", "option.predict_timeout": str(PREDICT_TIMEOUT)}
_TOLD_WITHIN = 2.5
_BACK_WITHIN = 1.0
# Between the request that hangs the worker and the one that waits behind it.
_BEHIND = 0.2
# Between two hangs, and before the first. Without trouble others are looked at for as long as with it.
_PAUSE = 0.3
_QUIET_SECONDS = HANGS * (PREDICT_TIMEOUT + _PAUSE)
# Until the bystanders' client is under way.
_SETTLE = 1.0


class Asked(NamedTuple):
    """A request's answer, and when it came."""

    status: int
    body: bytes
    sent: float
    came: float


class Hang(NamedTuple):
    """One hang, and the request that waited behind it."""

    hung: Asked
    next: Asked


def run(directory: Path, progress: Progress) -> list[Row]:
    calls = bystanders.make(directory / "store")
    coded.write(directory / "store", NAME, _HANGS, _PROPERTIES)
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()
        progress.doing("warming up")
        warming = traffic.run(server.inference, iter([*calls, *calls, coded.call(NAME)]))
        seconds = 2 * _SETTLE + _QUIET_SECONDS + HANGS * (_TOLD_WITHIN + _BACK_WITHIN + _PAUSE)
        with bystanders.asking(server.inference, calls, seconds) as client:
            progress.doing("others alone")
            time.sleep(_SETTLE)
            alone = Window(time.perf_counter(), time.perf_counter() + _QUIET_SECONDS)
            time.sleep(_QUIET_SECONDS)
            hangs = []
            for number in range(1, HANGS + 1):
                progress.doing(f"hang {number} of {HANGS}")
                hangs.append(_hang(server.inference))
                time.sleep(_PAUSE)
            beside = Window(alone.until, time.perf_counter())
            others = client.result()
    told = [hang.hung.came - hang.hung.sent for hang in hangs]
    back = [hang.next.came - hang.hung.came for hang in hangs]
    progress.say("told after " + ", ".join(f"{seconds:.2f}" for seconds in told) + " s")
    progress.say("the next answer " + ", ".join(f"{seconds * 1000:.0f}" for seconds in back) + " ms after that")
    failure = warming.problems
    right = coded.call(NAME)
    untold = next((_shown(hang.hung) for hang in hangs if hang.hung.status != 504), "")
    unanswered = next(
        (_shown(hang.next) for hang in hangs if hang.next.status != 200 or not right.accepts(hang.next.body)), ""
    )
    return [
        Row(f"hang: 504 after, the longest of {HANGS}", max(told), "s", _TOLD_WITHIN, failure=failure or untold),
        Row("hang: the model's next answer after that, the longest", max(back), "s", _BACK_WITHIN, failure=unanswered),
        bystanders.row(f"hang: p99 of {bystanders.MODELS} others beside it", others, [alone], [beside]),
    ]


def _hang(address: servers.Address) -> Hang:
    with ThreadPoolExecutor(2) as callers:
        hung = callers.submit(_ask, address, -1.0)
        time.sleep(_BEHIND)
        behind = callers.submit(_ask, address, 0.5)
        return Hang(hung.result(), behind.result())


def _ask(address: servers.Address, x: float) -> Asked:
    sent = time.perf_counter()
    status, body = address.exchange("POST", f"/predictions/{NAME}", coded.body(x))
    return Asked(status, body, sent, time.perf_counter())


def _shown(asked: Asked) -> str:
    return f"{asked.status} {asked.body.decode(errors='replace')[:100]}"
