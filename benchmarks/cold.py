"""The first request to a model that sleeps: unpacking, fork, load and prediction, seen by who waits for it."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

from benchmarks import models, servers
from benchmarks.hot import BODY
from benchmarks.report import Row, percentile
from benchmarks.rounds import Progress

MODELS = 200


def run(directory: Path, progress: Progress) -> list[Row]:
    names = models.make_store(directory / "store", MODELS)
    times = []
    failed = 0
    with servers.mmserve(directory, directory / "store") as server:
        server.wait_for_template()
        progress.doing(f"asking {MODELS} sleeping models, one after another")
        connection = http.client.HTTPConnection(server.inference.host, server.inference.port)
        for name in names:
            started = time.perf_counter()
            connection.request("POST", f"/predictions/{name}", BODY, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            times.append((time.perf_counter() - started) * 1000)
            failed += response.status != 200
        connection.close()
    median, late = percentile(times, 50), percentile(times, 99)
    progress.say(f"from {min(times):.1f} over {median:.1f} (p50) and {late:.1f} (p99) to {max(times):.1f} ms")
    failure = f"{failed} error responses" if failed else ""
    return [
        Row(f"cold: first request to a sleeping model, p50 of {MODELS}", median, "ms", 40, 20, failure=failure),
        Row("cold: the same, p99", late, "ms", 150, 60, failure=failure),
    ]
