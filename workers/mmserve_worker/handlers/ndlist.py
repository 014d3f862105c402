"""DJL's NDList format (`tensor/ndlist`), which `get_as_numpy` and `add_as_numpy` speak. Big-endian throughout.

    int32 number of arrays, then for each:
    text "NDAR" │ int32 version 3 │ byte 1 and a text if it has a name, else byte 0 │ text sparse format │ text dtype
    int32 dimensions, an int64 each │ int32 length of a layout, two bytes each │ byte order '<' or '>'
    int32 length, data

A text is an int16 length and UTF-8. Version 2 has no byte order, and is big-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import numpy as np

from mmserve_worker.calls import Buffer
from mmserve_worker.codecs.rows import Array

_MAGIC = "NDAR"


class _Reader:
    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)

    def take(self, length: int) -> memoryview:
        if not 0 <= length <= len(self._view):
            raise ValueError("not an NDList: it is cut off")
        taken, self._view = self._view[:length], self._view[length:]
        return taken

    def number(self, layout: str) -> int:
        packed = struct.Struct(layout)
        number: int = packed.unpack(self.take(packed.size))[0]
        return number

    def text(self) -> str:
        return str(self.take(self.number(">H")), "utf-8")


def decode(data: Buffer) -> list[Array]:
    reader = _Reader(data)
    return [_array(reader) for _ in range(reader.number(">i"))]


def _array(reader: _Reader) -> Array:
    if reader.text() != _MAGIC:
        raise ValueError("not an NDList: an array does not begin with NDAR")
    version = reader.number(">i")
    if reader.number("B"):
        reader.text()
    reader.text()
    dtype = np.dtype(reader.text().lower())
    if dtype.hasobject:
        raise ValueError("not an NDList: it claims to hold objects")
    shape = [reader.number(">q") for _ in range(reader.number(">i"))]
    reader.take(2 * reader.number(">i"))
    order = chr(reader.number("B")) if version > 2 else ">"
    data = reader.take(reader.number(">i"))
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("not an NDList: shape and length of an array differ")
    # A copy, because handlers may write to what they get.
    return np.frombuffer(data, dtype.newbyteorder("<" if order == "<" else ">")).reshape(shape).astype(dtype)


def encode(arrays: Iterable[Array]) -> bytes:
    # One alone is meant as such, and not as the arrays of its rows.
    arrays = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
    return b"".join([struct.pack(">i", len(arrays)), *map(_encoded, arrays)])


def _encoded(array: Array) -> bytes:
    array = np.asarray(array)
    data = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return b"".join(
        [
            _text(_MAGIC),
            struct.pack(">iB", 3, 0),
            _text("default"),
            _text(array.dtype.name.upper()),
            struct.pack(f">i{array.ndim}q", array.ndim, *array.shape),
            struct.pack(f">i{2 * array.ndim}x", array.ndim),
            b">",
            struct.pack(">i", len(data)),
            data,
        ]
    )


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()
