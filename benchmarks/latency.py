"""What a single caller waits for beside HTTP and the model: one connection, one request at a time."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import models, servers, wrk
from benchmarks.hot import BODY
from benchmarks.report import Row
from benchmarks.rounds import SECONDS, Progress, by_turns


def run(directory: Path, progress: Progress) -> list[Row]:
    (name,) = models.make_store(directory / "store", 1)
    path = f"/predictions/{name}"
    predicts: list[float] = []

    def post_to_reference() -> wrk.Load:
        # In the same round, for the same mood of the host.
        predicts.append(_predict())
        return wrk.post(reference, [path], BODY, connections=1, seconds=SECONDS)

    with servers.mmserve(directory, directory / "store") as server:
        answer = server.inference.call("POST", path, BODY.encode())
        wrk.post(server.inference, [path], BODY, connections=1, seconds=1)
        with servers.reference(answer) as reference:
            rounds = by_turns(
                progress,
                post_to_reference,
                lambda: wrk.post(server.inference, [path], BODY, connections=1, seconds=SECONDS),
            )
    progress.say("predict alone: " + ", ".join(f"{predict:.0f}" for predict in predicts) + " us")
    more = statistics.median(
        ours.p50 - theirs.p50 - predict
        for ours, theirs, predict in zip(rounds.ours, rounds.reference, predicts, strict=True)
    )
    failure = wrk.failures([*rounds.reference, *rounds.ours])
    return [Row("latency: p50 of one caller, less the reference's and predict", more, "us", 200, 100, failure=failure)]


def _predict() -> float:
    """Microseconds that the model takes in a process of its own."""
    run = subprocess.run([sys.executable, "-m", "benchmarks.predict"], capture_output=True, text=True, check=True)
    return float(run.stdout)
