"""How the requests and answers of one batch lie in a frame's payload.

    part headers (24 bytes each) │ metas │ body │ body │ ...     every body on a 64-byte boundary

A meta is the little that goes with a body: empty for what is usual (JSON in, JSON out), otherwise a JSON object.
Both sides know a part by its index; what a part's `code` means is the status of an answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mmserve_worker.calls import Buffer
from mmserve_worker.channel import ALIGNMENT, Channel

# Pieces of a streamed answer that may be ahead of its caller. Each takes a slot of the channel, as does saying that it
# was taken.
STREAM_WINDOW = 4

# code, length of the meta, length of the body
_PART = struct.Struct("<IIQ8x")


class Part(NamedTuple):
    """One request or answer. `body` is one buffer or several that are laid one behind the other."""

    code: int
    meta: bytes
    body: Buffer | tuple[Buffer, ...]


class PartView(NamedTuple):
    """A part as it lies in a payload."""

    code: int
    meta: bytes
    body: memoryview


def body_length(body: Buffer | tuple[Buffer, ...]) -> int:
    if isinstance(body, tuple):
        return sum(_length(buffer) for buffer in body)
    return _length(body)


def _length(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _aligned(offset: int) -> int:
    return (offset + ALIGNMENT - 1) & -ALIGNMENT


def overhead(parts: int, meta_bytes: int) -> int:
    """The most that `parts` parts take in a payload beyond their bodies."""
    return parts * (_PART.size + ALIGNMENT) + meta_bytes + ALIGNMENT


def write(channel: Channel, parts: Sequence[Part]) -> None:
    """Lays the parts into the channel, to be sent. Raises what `Channel.reserve` raises, and has then done nothing."""
    lengths = [body_length(part.body) for part in parts]
    metas = b"".join([part.meta for part in parts])
    position = len(parts) * _PART.size + len(metas)
    total = position
    for length in lengths:
        total = _aligned(total) + length
    payload = channel.reserve(total)
    offset = 0
    for part, length in zip(parts, lengths, strict=True):
        _PART.pack_into(payload, offset, part.code, len(part.meta), length)
        offset += _PART.size
    payload[offset:position] = metas
    for part, length in zip(parts, lengths, strict=True):
        position = _aligned(position)
        if isinstance(part.body, tuple):
            for buffer in part.body:
                end = position + _length(buffer)
                payload[position:end] = _flat(buffer)
                position = end
        else:
            end = position + length
            payload[position:end] = _flat(part.body)
            position = end
    payload.release()


def _flat(buffer: Buffer) -> Buffer:
    """The same bytes in a form that can be assigned to a slice of bytes."""
    if isinstance(buffer, memoryview) and (buffer.ndim != 1 or buffer.format != "B"):
        return buffer.cast("B") if buffer.nbytes else b""
    return buffer


def read(payload: memoryview, count: int) -> Iterator[PartView]:
    """The parts of a payload, as views of it."""
    meta_start = count * _PART.size
    headers = [_PART.unpack_from(payload, index * _PART.size) for index in range(count)]
    body_start = meta_start + sum(meta_length for _, meta_length, _ in headers)
    for code, meta_length, length in headers:
        body_start = _aligned(body_start)
        meta = bytes(payload[meta_start : meta_start + meta_length]) if meta_length else b""
        meta_start += meta_length
        yield PartView(code, meta, payload[body_start : body_start + length])
        body_start += length
