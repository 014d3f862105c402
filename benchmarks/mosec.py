"""Beside mosec, whose front is written in Rust: the same model and requests, in one run and by turns.

Both get one worker, batches of 32 that wait 2 ms to be filled, and at one connection none at all.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import joblib
import psutil

from benchmarks import models, servers, wrk
from benchmarks.hot import BODY
from benchmarks.report import Row
from benchmarks.rounds import CONNECTIONS, SECONDS, Progress, Rounds, by_turns
from benchmarks.servers import Address, ServerError

_BATCH = 32
# Milliseconds that a batch waits to be filled.
_WAIT = 2
_PATH = "/inference"
# Seconds that mosec may take to answer first.
_STARTING = 60.0
_PAUSE = 0.05


class Measured(NamedTuple):
    load: wrk.Load
    # Microseconds of CPU that all processes took for a request.
    cpu: float

    def __str__(self) -> str:
        return f"{self.load}, {self.cpu:.0f} us of CPU"


def run(directory: Path, progress: Progress) -> list[Row]:
    hot = _measure(directory / "hot", progress, CONNECTIONS, _BATCH)
    alone = _measure(directory / "alone", progress, 1, 1)
    rate = hot.median(lambda ours, theirs: ours.load.rate / theirs.load.rate)
    cpu = hot.median(lambda ours, theirs: ours.cpu / theirs.cpu)
    p50 = alone.median(lambda ours, theirs: ours.load.p50 / theirs.load.p50)
    failure = wrk.failures([each.load for rounds in (hot, alone) for each in (*rounds.reference, *rounds.ours)])
    what = "mosec: one hot model, requests/s over mosec's"
    return [
        Row(what, rate, "x", required=1.5, aim=2.0, more_is_better=True, failure=failure),
        Row("mosec: the same, CPU of a request over mosec's", cpu, "x", 0.75, 0.5, failure=failure),
        Row("mosec: p50 at one connection over mosec's, unbatched", p50, "x", 0.7, 0.5, failure=failure),
    ]


def _measure(directory: Path, progress: Progress, connections: int, batch: int) -> Rounds[Measured]:
    directory.mkdir()
    (name,) = models.make_store(directory / "store", 1)
    path = f"/predictions/{name}"
    delay = _WAIT if batch > 1 else 0
    with servers.mmserve(directory, directory / "store", batch_size=batch, max_batch_delay=delay) as server:
        server.inference.call("POST", path, BODY.encode())
        with _mosec(directory, batch) as (address, pid):
            ours = _load(server.inference, path, connections, server.pid)
            theirs = _load(address, _PATH, connections, pid)
            progress.doing("warming up")
            ours()
            theirs()
            return by_turns(progress, theirs, ours)


def _load(address: Address, path: str, connections: int, pid: int) -> Callable[[], Measured]:
    process = psutil.Process(pid)
    processes = [process, *process.children(recursive=True)]

    def load() -> Measured:
        before = _cpu(processes)
        measured = wrk.post(address, [path], BODY, connections=connections, seconds=SECONDS)
        return Measured(measured, (_cpu(processes) - before) / max(1, measured.requests) * 1e6)

    return load


def _cpu(processes: list[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


@contextmanager
def _mosec(directory: Path, batch: int) -> Iterator[tuple[Address, int]]:
    """Its address and the process that it is."""
    model = directory / "model.joblib"
    joblib.dump(models.linear(1.0), model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (directory / "mosec.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mosec_server", "--address=127.0.0.1", f"--port={port}"],
            env={**os.environ, "MODEL": str(model), "BATCH": str(batch), "WAIT": str(_WAIT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = Address("127.0.0.1", port)
    try:
        end = time.monotonic() + _STARTING
        while not _answers(address):
            if time.monotonic() > end or process.poll() is not None:
                raise ServerError("mosec does not start")
            time.sleep(_PAUSE)
        yield address, process.pid
    except ServerError as error:
        raise ServerError(f"{error}\n{servers.end_of(directory / 'mosec.log')}") from None
    finally:
        with servers.undisturbed(), process:
            process.terminate()


def _answers(address: Address) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException, ServerError):
        address.call("POST", _PATH, BODY.encode())
        return True
    return False
