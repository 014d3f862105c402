"""SIGTERM under load: what was accepted is answered, and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import coded, models, servers, traffic, witness
from benchmarks.foreground import foreground
from benchmarks.left import Left, processes
from benchmarks.report import Row
from benchmarks.rounds import Progress
from benchmarks.traffic import CONNECTIONS

ROUNDS = 3
MODELS = 20
# Half of the connections ask this one, whose requests are waiting and held when the signal comes.
SLOW = "slow"
_SLOW_SECONDS = 0.1
# Of load before the signal.
_SECONDS = 2.0


def run(directory: Path, progress: Progress) -> list[Row]:
    store = directory / "store"
    calls = models.calls(models.make_store(store, MODELS, properties={}))
    coded.write(store, SLOW, f"time.sleep({_SLOW_SECONDS})", {})
    slow = [coded.call(SLOW)]
    lost, wrong = Counter[str](), Counter[str]()
    statuses, remains = [], []
    for number in range(1, ROUNDS + 1):
        progress.doing(f"round {number} of {ROUNDS}")
        left = Left(directory)
        # The clients go on until the server has ended, whatever happens here.
        with ThreadPoolExecutor(1) as pool, foreground(directory, store) as front:
            warming = traffic.run(front.server.inference, iter([*calls, *slow]))
            if warming.problems:
                raise servers.ServerError(f"before any signal: {warming.problems}")
            half = CONNECTIONS // 2
            each = [calls[number % MODELS :] + calls for number in range(half)] + [slow] * half
            asking = pool.submit(witness.ask_until_refused, front.server.inference, each)
            time.sleep(_SECONDS)
            running = len(processes(front.server.marker))
            told = time.perf_counter()
            front.process.send_signal(signal.SIGTERM)
            try:
                statuses.append(front.process.wait(servers.TIMEOUT))
            except subprocess.TimeoutExpired:
                raise servers.ServerError("the server does not end when it is told to") from None
            ended = time.perf_counter() - told
            remains += left.of(front.server.marker)
            seen = asking.result()
        for testimony in seen:
            lost += Counter(what for what, _ in testimony.lost)
            wrong += testimony.wrong
        last = max(testimony.last for testimony in seen) - told
        late = [f"{1000 * (sent - told):.0f}" for testimony in seen for _, sent in testimony.lost]
        progress.say(
            f"round {number}: {sum(testimony.answered for testimony in seen):,} answered, the last {last:.2f} s after "
            f"the signal; {sum(testimony.refused for testimony in seen)} refused, "
            f"{sum(testimony.crossed for testimony in seen)} sent while their connection was closed and not read; "
            f"ended after {ended:.2f} s with status {statuses[-1]}"
        )
        if late:
            progress.say(f"round {number}: what was lost had been sent {', '.join(late)} ms after the signal")
    errors = ", ".join(f"{count} x {what}" for what, count in wrong.items())
    said = ", ".join(f"{count} x {what}" for what, count in lost.items())
    return [
        Row(
            f"sigterm: accepted requests lost, of {CONNECTIONS} connections, {ROUNDS} times",
            *(lost.total(), "", 0),
            failure=errors or said,
        ),
        Row("sigterm: exit status, the highest", max(map(abs, statuses)), required=0),
        Row(
            f"sigterm: of {running} processes, their run file and segments, left",
            *(len(remains), "", 0),
            failure=", ".join(remains[:3]),
        ),
    ]
