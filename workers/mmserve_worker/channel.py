"""The shared-memory channel between the front and one worker: the one file that both sides use.

    front                                                                     worker
      │  send ──► ┌ slots ┬ arena ──────────────────────────────┐ ──► receive   │
      │           └───────┴─────────────────────────────────────┘               │
      │ receive ◄─ ┌ slots ┬ arena ─────────────────────────────┐ ◄── send      │
                   └───────┴────────────────────────────────────┘
       eventfd "to worker": frames published         eventfd "to front": frames published

One anonymous memory file holds two directions. A direction has a ring of fixed slots, a frame's header each, and an
arena that payloads are laid into, each in one piece, so that a payload can be used where it lies.

Nothing is locked and nothing is shared but bytes that one side writes and the other reads:

- A frame is published by adding one to the direction's eventfd. The reader takes exactly as many frames as the
  counter said and never looks at an index in memory, so the order of stores does not matter to it (the two system
  calls are the barriers), and a frame that its writer did not live to finish does not exist.
- Space is given back by the `acknowledged` count that rides on every frame going the other way.
- When everything sent has been acknowledged, the next payload starts at the arena's beginning again: small traffic
  touches the same one or two pages for ever, although the arena is as large as the largest permitted payload.

multiprocessing.shared_memory is not used because it has a name in /dev/shm, which a SIGKILL leaves behind, and
multiprocessing.Queue not because a process killed inside it leaves its lock held (measured: 20 of 20 trials).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
from collections import deque
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
SLOTS = 16
# Payloads begin where a cache line and any NumPy dtype may begin.
ALIGNMENT = 64
# version, kind, batch id, model key, part count, time, payload offset, payload length, acknowledged, sequence
_SLOT = struct.Struct("<HHIIIdQQQQ")
_SLOT_SIZE = 64
_SLOTS_SIZE = SLOTS * _SLOT_SIZE
# What stays resident of an arena when it is trimmed; larger payloads are given back to the system.
KEPT_BYTES = 256 * 1024


class Kind(IntEnum):
    """What a frame says: those below 16 go to the worker, the others come from it."""

    LOAD = 1
    BATCH = 2
    ACKNOWLEDGE = 3
    STOP = 4
    CANCEL = 5
    LOADED = 16
    LOAD_FAILED = 17
    ANSWERS = 18
    STREAM = 19
    PIECE = 20
    STREAM_END = 21


class ChannelError(Exception):
    """The bytes of a channel are not what the protocol says: its other side is broken or of another version."""


class ChannelFull(Exception):
    """There is no room for this frame until the other side has acknowledged earlier ones."""


class FrameTooLarge(Exception):
    """This payload would not fit into the channel even if it were empty."""


class Frame(NamedTuple):
    """A received frame. `payload` is a view of the arena, valid until the frame is released.

    `time` is a batch's deadline (monotonic), or the seconds that its answers took. Nothing elsewhere. What is said of a
    stream has the place of its call in the batch for `parts`.
    """

    kind: int
    batch_id: int
    model_key: int
    parts: int
    time: float
    payload: memoryview


class ChannelFiles(NamedTuple):
    """The three descriptors that make a channel, in the order in which they are handed over."""

    memory: int
    to_worker: int
    to_front: int


def create(capacity: int) -> ChannelFiles:
    """Makes a channel whose payloads may have up to `capacity` bytes each way. Memory is taken when it is touched."""
    memory = os.memfd_create("mmserve-channel", os.MFD_CLOEXEC)
    descriptors = [memory]
    try:
        os.ftruncate(memory, 2 * direction_size(capacity))
        descriptors.append(os.eventfd(0, os.EFD_CLOEXEC))
        descriptors.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return ChannelFiles(*descriptors)


def direction_size(capacity: int) -> int:
    return -(-(_SLOTS_SIZE + capacity) // mmap.PAGESIZE) * mmap.PAGESIZE


class Channel:
    """One end of a channel. It owns the descriptors it is made of, and closes them."""

    def __init__(self, files: ChannelFiles, *, worker_side: bool) -> None:
        self.files = files
        self._open_files: tuple[int, ...] = files
        size = os.fstat(files.memory).st_size
        self._memory = mmap.mmap(files.memory, size)
        self._view = memoryview(self._memory)
        half = size // 2
        self.capacity = half - _SLOTS_SIZE
        self._send_base, self._receive_base = (half, 0) if worker_side else (0, half)
        self.receive_fd, self._send_fd = (
            (files.to_worker, files.to_front) if worker_side else (files.to_front, files.to_worker)
        )
        self._sent = 0
        # Start and end in the arena of every frame the other side has not acknowledged, oldest first.
        self._outstanding: deque[tuple[int, int]] = deque()
        self._high_water = 0
        self._received = 0
        self._received_high_water = 0
        self._released = 0
        self._reserved: tuple[int, int] | None = None

    @classmethod
    def create(cls, capacity: int) -> Channel:
        """The front's end of a new channel. Raises OSError, and has then opened nothing."""
        files = create(capacity)
        try:
            return cls(files, worker_side=False)
        except OSError:
            for descriptor in files:
                os.close(descriptor)
            raise

    @property
    def idle(self) -> bool:
        """Nothing sent is unacknowledged and nothing received unreleased."""
        return not self._outstanding and self._received == self._released

    def reserve(self, length: int) -> memoryview:
        """Room for a payload of `length` bytes, to be filled and then published with `send`."""
        if length > self.capacity:
            raise FrameTooLarge(f"{length} bytes do not fit a channel of {self.capacity}")
        start = self._find_room(length)
        self._reserved = (start, start + length)
        base = self._send_base + _SLOTS_SIZE + start
        return self._view[base : base + length]

    def send(self, kind: int, *, batch_id: int = 0, model_key: int = 0, parts: int = 0, time: float = 0.0) -> None:
        """Publishes a frame with the payload reserved before, or with none."""
        if self._reserved is None:
            self.reserve(0)
        assert self._reserved is not None
        start, end = self._reserved
        self._reserved = None
        _SLOT.pack_into(
            self._memory,
            self._send_base + self._sent % SLOTS * _SLOT_SIZE,
            VERSION,
            kind,
            batch_id,
            model_key,
            parts,
            time,
            start,
            end - start,
            self._released,
            self._sent,
        )
        self._sent += 1
        self._outstanding.append((start, end))
        self._high_water = max(self._high_water, end)
        os.eventfd_write(self._send_fd, 1)

    def receive(self) -> list[Frame]:
        """The frames published since the last call: at least one, waited for where the descriptor blocks.

        Raises BlockingIOError if there is none on the front's side, whose descriptor does not block.
        """
        while True:
            try:
                published = os.eventfd_read(self.receive_fd)
            except InterruptedError:
                # By a signal: unlike os.read, CPython's eventfd_read does not try again.
                continue
            return [self._read_slot() for _ in range(published)]

    def release(self) -> None:
        """Gives back the payload of the oldest frame received, which the next frame sent tells the other side."""
        self._released += 1

    def unread(self) -> bool:
        """Whether a frame was sent that the other side has not so much as looked at."""
        return _is_readable(self._send_fd)

    def has_received(self) -> bool:
        """Whether `receive` would return at once."""
        return _is_readable(self.receive_fd)

    def trim(self) -> bool:
        """Gives the memory of past large payloads back to the system. Only while both directions are at rest.

        Both directions are one file, so the side that knows of the rest does it for both.
        """
        trimmed = False
        for base, high_water in (
            (self._send_base, self._high_water),
            (self._receive_base, self._received_high_water),
        ):
            if high_water > KEPT_BYTES:
                first = base + -(-(_SLOTS_SIZE + KEPT_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
                last = -(-(base + _SLOTS_SIZE + high_water) // mmap.PAGESIZE) * mmap.PAGESIZE
                if last > first:
                    # MADV_REMOVE frees the pages of the file itself, for both processes.
                    self._memory.madvise(mmap.MADV_REMOVE, first, last - first)
                trimmed = True
        self._high_water = self._received_high_water = 0
        return trimmed

    @property
    def trimmable(self) -> bool:
        return max(self._high_water, self._received_high_water) > KEPT_BYTES

    def handed_over(self) -> None:
        """Closes the descriptor of the memory, which is mapped and has been given to the other side."""
        os.close(self.files.memory)
        self._open_files = self.files[1:]

    def close(self) -> None:
        """Closes the descriptors and unmaps the memory, or leaves that to the last view of it that is in use."""
        self._view.release()
        with contextlib.suppress(BufferError):
            self._memory.close()
        for descriptor in self._open_files:
            os.close(descriptor)

    def _find_room(self, length: int) -> int:
        outstanding = self._outstanding
        if not outstanding:
            return 0
        if len(outstanding) == SLOTS:
            raise ChannelFull(f"{SLOTS} frames are not acknowledged yet")
        oldest = outstanding[0][0]
        tail = -(-outstanding[-1][1] // ALIGNMENT) * ALIGNMENT
        wrapped = outstanding[-1][0] < oldest
        if wrapped:
            # Never up to `oldest` itself: a payload that starts there would look as if nothing had wrapped.
            if tail + length < oldest:
                return tail
        elif tail + length <= self.capacity:
            return tail
        elif length < oldest:
            return 0
        raise ChannelFull(f"no room for {length} bytes until earlier frames are acknowledged")

    def _read_slot(self) -> Frame:
        version, kind, batch_id, model_key, parts, time, start, length, acknowledged, sequence = _SLOT.unpack_from(
            self._memory, self._receive_base + self._received % SLOTS * _SLOT_SIZE
        )
        if version != VERSION:
            raise ChannelError(f"channel protocol version {version}, expected {VERSION}")
        outstanding = self._outstanding
        unacknowledged = self._sent - acknowledged
        if sequence != self._received or not 0 <= unacknowledged <= len(outstanding):
            raise ChannelError("a frame is out of sequence")
        end = start + length
        if end > self.capacity:
            raise ChannelError("a frame lies outside the channel")
        while len(outstanding) > unacknowledged:
            outstanding.popleft()
        self._received += 1
        self._received_high_water = max(self._received_high_water, end)
        base = self._receive_base + _SLOTS_SIZE + start
        return Frame(kind, batch_id, model_key, parts, time, self._view[base : base + length])


def _is_readable(descriptor: int) -> bool:
    # Not select(), which knows no descriptor above 1023.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
