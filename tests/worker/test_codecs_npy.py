"""What npy and npz bodies become, and that reading and writing them copies nothing."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmserve_worker import codecs
from mmserve_worker.calls import CallError
from mmserve_worker.codecs import limits
from tests.worker.unhurried import unhurried

NPY = "application/x-npy"
NPZ = "application/x-npz"


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npz(compressed: bool = False, /, **named: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **named)
    return file.getvalue()


def claiming(shape: str, data: bytes = b"", descr: str = "'<f8'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def refusal(body: bytes, content_type: str = NPY) -> str:
    with pytest.raises(CallError) as raised:
        codecs.decode(body, content_type)
    assert raised.value.status == 400
    assert "\n" not in str(raised.value)
    return str(raised.value)


ARRAYS = arrays.arrays(
    st.one_of(
        arrays.scalar_dtypes().filter(lambda dtype: dtype.itemsize <= 16),
        arrays.unicode_string_dtypes(min_len=1, max_len=4),
    ),
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
)


@unhurried
@given(ARRAYS, st.booleans())
def test_arrays_come_through_npy_unchanged(array: Any, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    values = codecs.decode(npy(array), NPY).values
    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_read_in_place(order: Any) -> None:
    body = bytearray(npy(np.asarray(np.arange(12.0).reshape(3, 4), order=order)))
    values = codecs.decode(memoryview(body), NPY).values
    assert np.may_share_memory(values, np.frombuffer(body, np.uint8))
    assert values.flags.f_contiguous if order == "F" else values.flags.c_contiguous
    # A retried request must find what was sent.
    assert not values.flags.writeable


def test_unaligned_arrays_are_moved() -> None:
    body = b"x" + npy(np.arange(4.0))
    values = codecs.decode(memoryview(body)[1:], NPY).values
    assert values.flags.aligned
    assert values.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, 1], object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros((2,), "V8"),
        np.float64(3.0),
    ],
)
def test_what_are_no_plain_values_is_refused(array: Any) -> None:
    refusal(npy(array, allow_pickle=True))


def test_pickles_are_never_loaded() -> None:
    for body in (pickle.dumps(np.eye(2)), npy(np.array([print], object), allow_pickle=True)):
        refusal(body)
    refusal(npz(data=np.array([print], object)), NPZ)


@pytest.mark.parametrize(
    "body",
    [
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY\x03\x00" + npy(np.eye(2))[8:],
        npy(np.eye(2))[:-1],
        npy(np.eye(2)) + b"x",
        claiming("(3,)", b"x" * 23),
        claiming("(-1,)"),
        claiming("(-1, -8)", b"x" * 64),
        claiming("(1.5,)"),
        claiming("3"),
        claiming("(0, 99999999999999999999999999)"),
        claiming("(" + "1, " * 100 + ")", b"x" * 8),
        claiming("(1L,)", b"x" * 8),
        claiming("(" * 500),
        claiming("(1,)", b"x" * 8, descr="'O'"),
        claiming("(1,)", descr="'<U0'"),
        claiming("(1,)", b"x" * 8, descr="'nonsense'"),
        claiming("(1,)", b"x" * 8, descr="('<f8', (2,))"),
        claiming("(1 if 1else 2,)", b"x" * 8),
        claiming("(1,)", b"x" * 8, descr="__import__('os')"),
        b"PK\x03\x04",
    ],
)
def test_what_is_no_npy_is_refused(body: bytes) -> None:
    refusal(body)


def test_a_header_that_lies_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        for shape in ("(1000000000000,)", "(1000000, 1000000)", f"({2**62}, 4)"):
            assert "bytes" in refusal(claiming(shape, b"x" * 64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@unhurried
@given(ARRAYS.filter(lambda array: array.dtype.kind in "biuf"), st.booleans())
def test_arrays_come_through_npz_unchanged(array: Any, compressed: bool) -> None:
    np.testing.assert_array_equal(codecs.decode(npz(compressed, anything=array), NPZ).values, array)


@pytest.mark.parametrize("name", ["data", "inputs", "instances", "x", "X"])
def test_of_several_arrays_the_one_with_a_usual_name_is_taken(name: str) -> None:
    body = npz(**{"weights": np.eye(3), name: np.array([[7]])})
    assert codecs.decode(body, NPZ).values.tolist() == [[7]]
    assert "data" in refusal(npz(a=np.eye(2), b=np.eye(2)), NPZ)


def test_an_npz_must_be_one() -> None:
    body = npz(True, data=np.arange(1000))
    for broken in (b"PK\x05\x06" + b"\0" * 18, body[:-5], body[:100] + b"\xff" * 50 + body[150:], npy(np.eye(2))):
        refusal(broken, NPZ)


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    import mmserve_worker.codecs.npz as npz_module

    monkeypatch.setattr(npz_module, "largest_expansion", lambda: 1_000_000)
    tracemalloc.start()
    try:
        assert "unpacks to" in refusal(npz(True, data=np.zeros(1_000_000, np.uint8)), NPZ)
        lying = bytearray(npz(True, data=np.zeros(10_000_000, np.uint8)))
        start = lying.index(b"PK\x01\x02")
        lying[start + 24 : start + 28] = struct.pack("<I", 1000)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        refusal(bytes(lying), NPZ)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bounds_are_refused(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("data.npy", npy(np.eye(2)))
    assert "compressed" in refusal(file.getvalue(), NPZ)


def test_the_limit_is_a_share_of_the_memory_there_is() -> None:
    assert 16 * 1024 * 1024 < limits.largest_expansion() < 2**45
