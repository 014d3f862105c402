"""The channel against a model of it, both sides in one process; its behaviour when a side is killed is below."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmserve_worker import channel, process
from mmserve_worker.channel import KEPT_BYTES, SLOTS, Channel, ChannelError, ChannelFiles, ChannelFull, FrameTooLarge


@contextmanager
def both_ends(capacity: int) -> Iterator[tuple[Channel, Channel]]:
    """The front's end and the worker's, of one channel, in this process."""
    files = channel.create(capacity)
    front = Channel(files, worker_side=False)
    worker = Channel(ChannelFiles(*map(os.dup, files)), worker_side=True)
    try:
        yield front, worker
    finally:
        front.close()
        worker.close()


def send(end: Channel, payload: bytes, kind: int = 2, batch_id: int = 0) -> None:
    end.reserve(len(payload))[:] = payload
    end.send(kind, batch_id=batch_id, model_key=7, parts=3, time=1.5)


def test_a_frame_arrives_as_it_was_sent() -> None:
    with both_ends(4096) as (front, worker):
        send(front, b"payload", kind=2, batch_id=9)
        (frame,) = worker.receive()
        assert bytes(frame.payload) == b"payload"
        assert (frame.kind, frame.batch_id, frame.model_key, frame.parts, frame.time) == (2, 9, 7, 3, 1.5)


def test_an_empty_frame_arrives() -> None:
    with both_ends(4096) as (front, worker):
        front.send(4)
        (frame,) = worker.receive()
        assert frame.kind == 4
        assert bytes(frame.payload) == b""


def test_the_largest_payload_fits_and_one_byte_more_does_not() -> None:
    with both_ends(100_000) as (front, worker):
        payload = os.urandom(front.capacity)
        send(front, payload)
        (frame,) = worker.receive()
        assert bytes(frame.payload) == payload
        with pytest.raises(FrameTooLarge):
            front.reserve(front.capacity + 1)


def test_a_frame_is_unread_until_the_other_side_looks() -> None:
    with both_ends(4096) as (front, worker):
        assert not front.unread()
        send(front, b"x")
        assert front.unread()
        worker.receive()
        assert not front.unread()


def test_the_front_does_not_block_where_nothing_was_published() -> None:
    with both_ends(4096) as (front, _), pytest.raises(BlockingIOError):
        front.receive()


def test_a_frame_of_another_version_is_refused() -> None:
    with both_ends(4096) as (front, worker):
        send(front, b"x")
        os.pwrite(front.files.memory, b"\xff\xff", 0)
        with pytest.raises(ChannelError, match="version"):
            worker.receive()


@pytest.mark.parametrize("offset", [24, 32, 40, 48], ids=["start", "length", "acknowledged", "sequence"])
def test_a_damaged_header_is_refused_and_not_believed(offset: int) -> None:
    with both_ends(4096) as (front, worker):
        send(front, b"x")
        os.pwrite(front.files.memory, b"\xff\xff\xff\xff\xff\xff\xff\x7f", offset)
        with pytest.raises(ChannelError):
            worker.receive()


def test_small_traffic_touches_few_pages() -> None:
    with both_ends(64 * 1024 * 1024) as (front, worker):
        for _ in range(5000):
            send(front, b"x" * 100)
            worker.receive()
            worker.release()
            send(worker, b"y" * 100)
            front.receive()
            front.release()
        assert os.fstat(front.files.memory).st_blocks * 512 <= 4 * 4096


def test_a_large_payload_does_not_stay_resident() -> None:
    with both_ends(64 * 1024 * 1024) as (front, worker):
        send(front, bytes(32 * 1024 * 1024))
        worker.receive()
        worker.release()
        send(worker, bytes(16 * 1024 * 1024))
        front.receive()
        front.release()
        assert front.idle
        assert front.trimmable
        assert os.fstat(front.files.memory).st_blocks * 512 > 40 * 1024 * 1024
        assert front.trim()
        assert os.fstat(front.files.memory).st_blocks * 512 <= 2 * KEPT_BYTES + 16 * 4096
        assert not front.trimmable
        send(front, b"still works" * 100_000)
        (frame,) = worker.receive()
        assert bytes(frame.payload) == b"still works" * 100_000


class ChannelMachine(RuleBasedStateMachine):
    """Random sends, receives and releases on both sides, against two plain queues."""

    @initialize(capacity=st.sampled_from([256, 1000, 4096, 1 << 20]))
    def open(self, capacity: int) -> None:
        self.context = both_ends(capacity)
        self.ends = self.context.__enter__()
        self.capacity = self.ends[0].capacity
        # For each side: what was sent and not received, and what was received and not released.
        self.flying: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self.held: tuple[deque[tuple[memoryview, bytes]], deque[tuple[memoryview, bytes]]] = (deque(), deque())
        self.random = random.Random(0)

    @rule(side=st.integers(0, 1), share=st.floats(0, 1.01))
    def send(self, side: int, share: float) -> None:
        payload = self.random.randbytes(int(self.capacity * share * share))
        end = self.ends[side]
        before = len(self.flying[1 - side]) + len(self.held[1 - side])
        try:
            send(end, payload)
        except FrameTooLarge:
            assert len(payload) > self.capacity
        except ChannelFull:
            # Never when everything was received, released and acknowledged.
            assert before or end._outstanding
        else:
            self.flying[1 - side].append(payload)

    @rule(side=st.integers(0, 1))
    def receive(self, side: int) -> None:
        if not self.flying[side]:
            return
        frames = self.ends[side].receive()
        assert len(frames) == len(self.flying[side])
        for frame in frames:
            sent = self.flying[side].popleft()
            assert bytes(frame.payload) == sent
            self.held[side].append((frame.payload, sent))

    @rule(side=st.integers(0, 1))
    def release(self, side: int) -> None:
        if self.held[side]:
            self.held[side].popleft()
            self.ends[side].release()

    @precondition(lambda self: not any(self.flying) and not any(self.held))
    @rule()
    def trim(self) -> None:
        if all(end.idle for end in self.ends):
            self.ends[0].trim()

    @invariant()
    def what_is_held_is_not_written_over(self) -> None:
        for side in (0, 1):
            for held, sent in getattr(self, "held", ((), ()))[side]:
                assert bytes(held) == sent
            if hasattr(self, "ends"):
                assert len(self.ends[side]._outstanding) <= SLOTS

    def teardown(self) -> None:
        if hasattr(self, "context"):
            self.held = (deque(), deque())
            self.context.__exit__(None, None, None)


TestChannelAgainstItsModel = ChannelMachine.TestCase
TestChannelAgainstItsModel.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def _writer(files: ChannelFiles) -> None:
    """A child that writes frames as fast as it can, each of one repeated byte, until it is killed."""
    process.die_with_parent(os.getppid())
    end = Channel(files, worker_side=True)
    number = 0
    while True:
        payload = bytes([number % 251]) * (number * 37 % 3000)
        try:
            send(end, payload, batch_id=number)
        except ChannelFull:
            for _ in end.receive():
                end.release()
            continue
        number += 1


@pytest.mark.parametrize("seed", range(25))
def test_a_writer_killed_at_any_instant_leaves_only_whole_frames(seed: int) -> None:
    files = channel.create(16 * 1024)
    pid = os.fork()
    if pid == 0:
        try:
            _writer(files)
        finally:
            os._exit(1)
    front = Channel(files, worker_side=False)
    poll = select.poll()
    poll.register(front.receive_fd, select.POLLIN)
    lifetime = time.monotonic() + random.Random(seed).uniform(0.001, 0.04)
    expected = acknowledged = 0
    killed = False
    while True:
        if not killed and time.monotonic() > lifetime:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            killed = True
        if not poll.poll(5):
            if killed:
                break
            continue
        for frame in front.receive():
            assert frame.batch_id == expected
            assert bytes(frame.payload) == bytes([expected % 251]) * (expected * 37 % 3000)
            expected += 1
            front.release()
        # Not for each frame: the writer reads these only when it has no room left.
        if expected - acknowledged >= SLOTS // 2:
            front.send(3)
            acknowledged = expected
    front.close()


@pytest.mark.parametrize("seed", range(10))
def test_a_reader_killed_at_any_instant_leaves_its_writer_working(seed: int) -> None:
    files = channel.create(16 * 1024)
    pid = os.fork()
    if pid == 0:
        try:
            process.die_with_parent(os.getppid())
            end = Channel(files, worker_side=True)
            while True:
                for frame in end.receive():
                    answer = bytes(frame.payload)
                    end.release()
                    send(end, answer, batch_id=frame.batch_id)
        finally:
            os._exit(1)
    front = Channel(files, worker_side=False)
    poll = select.poll()
    poll.register(front.receive_fd, select.POLLIN)
    chance = random.Random(seed)
    for number in range(chance.randrange(50, 400)):
        payload = bytes([number % 251]) * chance.randrange(4000)
        send(front, payload, batch_id=number)
        assert poll.poll(5000)
        (frame,) = front.receive()
        assert bytes(frame.payload) == payload
        front.release()
    send(front, b"never answered")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # Whatever the dead side did not take is bounded by the ring: refused in the end, never waited for.
    for _ in range(SLOTS - 1):
        send(front, b"x")
    with pytest.raises(ChannelFull):
        send(front, b"x")
    front.close()
