"""What the front keeps of an answer that comes in pieces: it counts once, by what first ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from mmserve.scheduling.streams import Stream, StreamCut
from mmserve.supervision.worker import Worker


def begun(counted: list[int]) -> Stream:
    """A stream whose worker has ended, and is told nothing."""
    worker = SimpleNamespace(ended=True, pool=SimpleNamespace(model=SimpleNamespace(name="m")))
    stream = Stream(cast(Worker, worker), 1, 0)
    stream.begin(201, counted.append)
    return stream


def take(stream: Stream) -> None:
    with pytest.raises(StreamCut):
        asyncio.run(stream.next())


def take_all(stream: Stream) -> None:
    stream.feed(b"piece")
    stream.end()
    assert asyncio.run(stream.next()) == b"piece"
    assert asyncio.run(stream.next()) is None


def fail(stream: Stream) -> None:
    stream.end("The worker was killed by SIGKILL.")
    take(stream)


def give_up(stream: Stream) -> None:
    stream.cut("The server stops.")
    take(stream)


@pytest.mark.parametrize(
    ("end", "status"),
    [(take_all, 201), (fail, 424), (Stream.abandon, 499), (give_up, 504), (Stream.decline, 201)],
)
def test_it_counts_once_by_what_first_ended_it(end: Callable[[Stream], None], status: int) -> None:
    counted: list[int] = []
    stream = begun(counted)
    assert counted == []
    end(stream)
    # Whoever sends it does so in any case.
    stream.abandon()
    assert counted == [status]
