"""One model that everybody asks: what the way through queue, channel and worker costs of the throughput."""

from __future__ import annotations

from pathlib import Path

from benchmarks import models, servers, wrk
from benchmarks.report import Row
from benchmarks.rounds import CONNECTIONS, SECONDS, Progress, by_turns

BODY = "[[0.5]]"


def run(directory: Path, progress: Progress) -> list[Row]:
    (name,) = models.make_store(directory / "store", 1)
    path = f"/predictions/{name}"
    with servers.mmserve(directory, directory / "store") as server:
        answer = server.inference.call("POST", path, BODY.encode())
        progress.doing("warming up")
        wrk.post(server.inference, [path], BODY, connections=CONNECTIONS, seconds=SECONDS)
        with servers.reference(answer) as reference:
            rounds = by_turns(
                progress,
                lambda: wrk.post(reference, [path], BODY, connections=CONNECTIONS, seconds=SECONDS),
                lambda: wrk.post(server.inference, [path], BODY, connections=CONNECTIONS, seconds=SECONDS),
            )
    ratio = rounds.median(lambda ours, theirs: ours.rate / theirs.rate)
    failure = wrk.failures([*rounds.reference, *rounds.ours])
    what = "hot: one model, requests/s over the reference's"
    return [Row(what, ratio, "x", required=1.2, aim=1.6, more_is_better=True, failure=failure)]
