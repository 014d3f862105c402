"""A server as systemd runs it: in the foreground, as a child whose end and exit status can be seen."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import servers
from mmserve import runfile

# Between two looks for its run file: this much more it may seem to take to start.
_PAUSE = 0.002


@dataclass(frozen=True, slots=True)
class Front:
    """The front process and its server. `started` is when its command was run (time.perf_counter())."""

    process: subprocess.Popen[bytes]
    server: servers.MmServe
    started: float


@contextmanager
def foreground(directory: Path, store: Path, **settings: Any) -> Iterator[Front]:
    """`mmserve start --foreground`, ended in the end if it still runs."""
    marker = secrets.token_hex(8)
    log = directory / f"{marker}.log"
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmserve", *servers.start_command(directory, store, settings), "--foreground"],
            env={**os.environ, servers.MARKER: marker},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Front(process, servers.MmServe(_running(directory, process, log), marker), started)
    finally:
        with servers.undisturbed():
            process.terminate()
            try:
                process.wait(servers.TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _running(directory: Path, process: subprocess.Popen[bytes], log: Path) -> runfile.Running:
    """What the server says of itself as soon as it answers."""
    end = time.monotonic() + servers.TIMEOUT
    while (running := runfile.read(servers.run_file(directory))) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise servers.ServerError(f"the server does not start\n{servers.end_of(log)}")
        time.sleep(_PAUSE)
    return running
