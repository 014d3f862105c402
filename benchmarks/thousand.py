"""A thousand models, each in a worker of its own, asked in turn: no batch ever forms. And what they all hold."""

from __future__ import annotations

import itertools
from pathlib import Path

from benchmarks import memory, models, servers, traffic, wrk
from benchmarks.hot import BODY
from benchmarks.report import GIB, Row
from benchmarks.rounds import CONNECTIONS, SECONDS, Progress, by_turns

MODELS = 1000
# Until a worker's memory is as it will be.
_ANSWERS_TO_WARM_UP = 20


def run(directory: Path, progress: Progress) -> list[Row]:
    progress.doing(f"packing {MODELS:,} models")
    names = models.make_store(directory / "store", MODELS)
    paths = [f"/predictions/{name}" for name in names]
    with servers.mmserve(directory, directory / "store") as server:
        answer = server.inference.call("POST", paths[0], BODY.encode())
        progress.doing(f"waking {MODELS:,} models, {_ANSWERS_TO_WARM_UP} answers each")
        calls = [traffic.call(name, path, BODY.encode()) for name, path in zip(names, paths, strict=True)]
        warming = traffic.run(server.inference, itertools.chain.from_iterable([calls] * _ANSWERS_TO_WARM_UP))
        with servers.reference(answer) as reference:
            rounds = by_turns(
                progress,
                lambda: wrk.post(reference, paths, BODY, connections=CONNECTIONS, seconds=SECONDS),
                lambda: wrk.post(server.inference, paths, BODY, connections=CONNECTIONS, seconds=SECONDS),
            )
        workers = server.status()["workers"]
        progress.doing("adding up the memory")
        held = memory.pss_of_tree(server.pid)
    progress.say(f"{workers:,} workers hold {held / GIB:.2f} GiB, {held / workers / 1e6:.1f} MB each with their share")
    ratio = rounds.median(lambda ours, theirs: ours.rate / theirs.rate)
    failure = warming.problems or wrk.failures([*rounds.reference, *rounds.ours])
    missing = "" if workers == MODELS else f"{workers} workers, not {MODELS}"
    return [
        Row(
            f"thousand: {MODELS:,} models evenly, requests/s over the reference's",
            *(ratio, "x", 0.14, 0.2),
            more_is_better=True,
            failure=failure,
        ),
        Row(f"memory: PSS of all with {workers:,} workers", held / GIB, "GiB", 6, 4.5, failure=missing),
    ]
