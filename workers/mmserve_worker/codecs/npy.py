"""NumPy's npy format: requests to rows without a copy, answers without a copy.

Numbers, booleans, dates and fixed-width strings are taken, in C and in Fortran order; objects, which would
need pickle, and records are refused. The header must claim exactly the bytes that follow it, so a lie about
the shape allocates nothing. The array is a read-only view of the body, so that a batch that is tried again
finds what was sent.
"""

from __future__ import annotations

import io
import math
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from mmserve_worker.calls import Buffer
from mmserve_worker.codecs.answers import Answer, flat, without_objects
from mmserve_worker.codecs.refusals import bad_request
from mmserve_worker.codecs.rows import Array, Rows

_KINDS = frozenset("biufcmMSU")
# Length field and longest header of the two versions that plain arrays are written in; numpy.save pads to 64
# bytes and needs two of them for any array of numbers.
_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
_LONGEST_HEADER = 4096


class _Layout(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    nbytes: int


def decode(body: Buffer) -> Rows:
    return Rows(array(body))


def array(body: Buffer) -> Array:
    view = memoryview(body).toreadonly()
    start = _header_length(view)
    dtype, shape, fortran_order, nbytes = _layout(bytes(view[:start]))
    if view.nbytes - start != nbytes:
        raise bad_request(f"the npy header claims {nbytes} bytes of data, {view.nbytes - start} follow it")
    values = np.frombuffer(view, dtype, offset=start) if nbytes else np.empty(0, dtype)
    if not values.flags.aligned:
        # Compiled code may take an array at its word; the channel aligns every body, others need not.
        values = values.copy()
    try:
        return values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)
    except (ValueError, OverflowError):
        raise bad_request("not an npy array: its shape is impossible") from None


def _header_length(view: memoryview) -> int:
    length_bytes = _LENGTH_BYTES.get(bytes(view[:8]))
    if length_bytes is None or view.nbytes < 8 + length_bytes:
        raise bad_request("not an npy array: it does not begin as version 1 or 2 of the format does")
    length = 8 + length_bytes + int.from_bytes(view[8 : 8 + length_bytes], "little")
    if length > min(view.nbytes, _LONGEST_HEADER):
        raise bad_request("not an npy array: its header is cut off or too long")
    return length


@lru_cache(maxsize=16)
def _layout(header: bytes) -> _Layout:
    """What a header says. Cached because a model's callers send the same few shapes, and it takes 30 us."""
    file = io.BytesIO(header)
    version = npy_format.read_magic(file)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            # It warns of headers that Python 2 wrote, and where the header's literal is no proper Python.
            warnings.simplefilter("error")
            shape, fortran_order, dtype = read(file)
    except Exception:  # a header is evaluated as Python, then repaired token by token: that raises what it likes
        raise bad_request("not an npy array: its header cannot be read") from None
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise bad_request("npy arrays of this dtype are not taken: send numbers, booleans or strings")
    if not shape:
        raise bad_request("a single value is not a row: send an array of one or two dimensions")
    if min(shape) < 0:
        raise bad_request("not an npy array: a dimension is negative")
    return _Layout(dtype, shape, fortran_order, math.prod(shape) * dtype.itemsize)


def encode(answer: Answer) -> tuple[Buffer, Buffer]:
    """Header and data as two buffers, the data being the array's own memory."""
    values = flat(answer)
    if values.dtype.hasobject:
        values = without_objects(values)
    fortran_order = values.flags.f_contiguous and not values.flags.c_contiguous
    header = _header(values.dtype, values.shape, fortran_order)
    if not values.nbytes:
        return header, b""
    if fortran_order:
        values = values.T
    # As bytes: memoryview itself cannot cast strings, dates or foreign byte orders.
    return header, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


@lru_cache(maxsize=16)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...], fortran_order: bool) -> bytes:
    file = io.BytesIO()
    descr = npy_format.dtype_to_descr(dtype)
    npy_format.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran_order, "shape": shape})
    return file.getvalue()
