"""How the requests and answers of one batch lie in a frame's payload.

    part headers (24 bytes each) │ metas │ body │ body │ ...     every body on a 64-byte boundary

A meta is the little that goes with a body: empty for what is usual (JSON in, JSON out), otherwise a JSON object.
Both sides know a part by its index; what a part's `code` means is the status of an answer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from mmserve_worker.calls import Buffer
from mmserve_worker.channel import ALIGNMENT, Channel, ChannelError

# Pieces of a streamed answer that may be ahead of its caller. Each takes a slot of the channel, as does saying that it
# was taken.
STREAM_WINDOW = 4

# code, length of the meta, length of the body
_PART = struct.Struct("<IIQ8x")


# One request or answer: its code, its meta, and its body, one buffer or several that are laid one behind the other.
# (Named, they would take 0.3 us each to be made, twice on each side of the channel.)
Part = tuple[int, bytes, Buffer | tuple[Buffer, ...]]
# The same as it lies in a payload.
PartView = tuple[int, bytes, memoryview]


def body_length(body: Buffer | tuple[Buffer, ...]) -> int:
    if isinstance(body, tuple):
        return sum(_length(buffer) for buffer in body)
    return _length(body)


def _length(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def overhead(parts: int, meta_bytes: int) -> int:
    """The most that `parts` parts take in a payload beyond their bodies."""
    return parts * (_PART.size + ALIGNMENT) + meta_bytes + ALIGNMENT


def write(channel: Channel, parts: Sequence[Part]) -> None:
    """Lays the parts into the channel, to be sent. Raises what `Channel.reserve` raises, and has then done nothing."""
    metas = b"".join([meta for _, meta, _ in parts])
    headers_end = total = len(parts) * _PART.size + len(metas)
    headers: list[int] = []
    starts: list[int] = []
    for code, meta, body in parts:
        length = len(body) if type(body) is bytes else body_length(body)
        headers += (code, len(meta), length)
        starts.append(start := (total + ALIGNMENT - 1) & -ALIGNMENT)
        total = start + length
    payload = channel.reserve(total)
    _headers(len(parts)).pack_into(payload, 0, *headers)
    if metas:
        payload[headers_end - len(metas) : headers_end] = metas
    for (_, _, body), start in zip(parts, starts, strict=True):
        if type(body) is bytes:
            payload[start : start + len(body)] = body
            continue
        at = start
        for buffer in body if isinstance(body, tuple) else (body,):
            payload[at : at + _length(buffer)] = _flat(buffer)
            at += _length(buffer)
    payload.release()


@lru_cache(maxsize=256)
def _headers(parts: int) -> struct.Struct:
    """Those of so many parts, packed at once."""
    return struct.Struct("<" + _PART.format.removeprefix("<") * parts)


def _flat(buffer: Buffer) -> Buffer:
    """The same bytes in a form that can be assigned to a slice of bytes."""
    if isinstance(buffer, memoryview) and (buffer.ndim != 1 or buffer.format != "B"):
        return buffer.cast("B") if buffer.nbytes else b""
    return buffer


def read(payload: memoryview, count: int) -> list[PartView]:
    """The parts of a payload, as views of it. Raises ChannelError for more than it has room for."""
    meta_start = count * _PART.size
    if meta_start > len(payload):
        raise ChannelError(f"{count} parts do not fit into {len(payload)} bytes")
    headers = _headers(count).unpack_from(payload)
    codes, meta_lengths, lengths = headers[::3], headers[1::3], headers[2::3]
    body_start = meta_start + sum(meta_lengths)
    parts: list[PartView] = []
    for code, meta_length, length in zip(codes, meta_lengths, lengths, strict=True):
        meta = b""
        if meta_length:
            meta = bytes(payload[meta_start : meta_start + meta_length])
            meta_start += meta_length
        body_start = (body_start + ALIGNMENT - 1) & -ALIGNMENT
        parts.append((code, meta, payload[body_start : body_start + length]))
        body_start += length
    if body_start > len(payload):
        raise ChannelError(f"{count} parts of {body_start} bytes do not fit into {len(payload)}")
    return parts
