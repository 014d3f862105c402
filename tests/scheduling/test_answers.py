"""A worker whose memory was written over is found out: it has the front take nothing that nobody asked for."""

from __future__ import annotations

import asyncio
import struct

import pytest

from mmserve.scheduling.answers import answers_of
from mmserve.scheduling.queue import Batch
from mmserve.scheduling.request import Answer, Request
from mmserve_worker.channel import ALIGNMENT, ChannelError, Frame, Kind


@pytest.fixture
def held() -> Batch:
    """Three requests, the first of which has been answered."""
    loop = asyncio.new_event_loop()
    requests = [Request(b"", "", "", "", {}, 1.0, loop.create_future()) for _ in range(3)]
    loop.close()
    return Batch(requests, answered=1)


def frame(parts: int, *, said: int = 1) -> Frame:
    """One answer of one byte, of which something else is said."""
    payload = struct.pack("<IIQ8x", 200, 0, said).ljust(ALIGNMENT, b"\0") + b"x"
    return Frame(Kind.ANSWERS, 0, 0, parts, 0.0, memoryview(payload))


def test_answers_to_what_is_held_are_read(held: Batch) -> None:
    assert answers_of(held, frame(1)) == [Answer(200, "application/json", {}, b"x")]


@pytest.mark.parametrize("parts", [0, 3, 100_000_000])
def test_as_many_answers_as_nobody_waits_for_are_refused(held: Batch, parts: int) -> None:
    with pytest.raises(ChannelError, match="answers to 2 requests"):
        answers_of(held, frame(parts))


@pytest.mark.parametrize("said", [2, 1 << 40, (1 << 64) - 1])
def test_an_answer_that_is_said_to_be_longer_than_its_frame_is_not_sent_cut_off(held: Batch, said: int) -> None:
    with pytest.raises(ChannelError, match="bytes"):
        answers_of(held, frame(1, said=said))
