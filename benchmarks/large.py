"""A large tensor there and back: how much of the reference's speed the two copies and the worker leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import models, servers
from benchmarks.report import MIB, Row
from benchmarks.rounds import SECONDS, Progress, by_turns
from benchmarks.servers import Address, ServerError

SIZE = 32 * MIB


class Transfer(NamedTuple):
    """What `benchmarks.bulk` says."""

    round_trips: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second, those there and those back."""
        return 2 * SIZE * self.round_trips / self.seconds

    def __str__(self) -> str:
        return f"{self.rate / MIB:,.0f} MiB/s"


def run(directory: Path, progress: Progress) -> list[Row]:
    store = directory / "store"
    store.mkdir()
    models.write_archive(store, "identity", models.identity())
    with servers.mmserve(directory, store) as server, servers.reference() as reference:
        progress.doing("warming up")
        _transfer(server.inference, "/predictions/identity")
        rounds = by_turns(
            progress,
            lambda: _transfer(reference, "/echo"),
            lambda: _transfer(server.inference, "/predictions/identity"),
        )
    ratio = rounds.median(lambda ours, theirs: ours.rate / theirs.rate)
    what = f"large: {SIZE // MIB} MiB of npy there and back, bytes/s over the reference's"
    return [Row(what, ratio, "x", required=0.4, aim=0.7, more_is_better=True)]


def _transfer(address: Address, path: str) -> Transfer:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.bulk", address.host, str(address.port), path, str(SIZE), str(SECONDS)],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise ServerError(f"POST {path} of {SIZE} bytes: {run.stderr.strip()}")
    return Transfer(**msgspec.json.decode(run.stdout))
