"""DJL's format of arrays, and what else is taken for one."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmserve_worker.handlers import ndlist
from mmserve_worker.handlers.djl_input import Input
from mmserve_worker.handlers.djl_output import Output
from tests.worker.unhurried import unhurried


@unhurried
@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=3,
    )
)
def test_arrays_come_through_an_ndlist_unchanged(several: list[Any]) -> None:
    inputs = Input()
    inputs.content.add("data", bytearray(Output().add_as_numpy(several).content.value_at(0)))
    for before, after in zip(several, inputs.get_as_numpy(), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_an_ndlist_is_laid_out_as_documented() -> None:
    expected = (
        b"\0\0\0\1" b"\0\4NDAR" b"\0\0\0\3" b"\0" b"\0\7default" b"\0\7FLOAT32"
        b"\0\0\0\2" b"\0\0\0\0\0\0\0\1" b"\0\0\0\0\0\0\0\2" b"\0\0\0\2\0\0\0\0" b">"
        b"\0\0\0\x08" b"\x3f\x80\0\0\x40\0\0\0"
    )  # fmt: skip
    encoded = ndlist.encode([np.array([[1, 2]], np.float32)])
    assert encoded == expected
    little = expected.replace(b">\0\0\0\x08\x3f\x80\0\0\x40\0\0\0", b"<\0\0\0\x08\0\0\x80\x3f\0\0\0\x40")
    named = little.replace(b"\0\0\0\3\0\0\7default", b"\0\0\0\3\1\0\1n\0\7default")
    for variant in (expected, little, named):
        np.testing.assert_array_equal(ndlist.decode(variant)[0], [[1, 2]])


@unhurried
@given(st.binary(max_size=60) | st.integers(0, 70).map(lambda end: ndlist.encode([np.eye(2)])[:end]))
def test_what_is_no_ndlist_is_a_value_error_and_allocates_nothing(data: bytes) -> None:
    try:
        decoded = ndlist.decode(data)
    except (ValueError, TypeError):
        return
    assert sum(array.nbytes for array in decoded) <= len(data)


def test_other_formats_of_arrays_are_taken_for_what_they_are() -> None:
    npy, npz = io.BytesIO(), Output().add_as_npz([np.eye(2), np.arange(3)]).content.value_at(0)
    np.save(npy, np.eye(2))
    inputs = Input()
    inputs.content.add("npy", bytearray(npy.getvalue()))
    inputs.content.add("npz", bytearray(npz))
    np.testing.assert_array_equal(inputs.get_as_numpy("npy")[0], np.eye(2))
    assert [array.shape for array in inputs.get_as_numpy("npz")] == [(2, 2), (3,)]
    assert [array.shape for array in inputs.get_as_npz("npz")] == [(2, 2), (3,)]
