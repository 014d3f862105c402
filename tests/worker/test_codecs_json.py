"""What JSON and JSON Lines bodies become."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmserve_worker import codecs
from mmserve_worker.calls import CallError
from mmserve_worker.codecs.rows import Rows
from tests.worker.unhurried import unhurried

JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/x-ndjson")


def decoded(value: Any, content_type: str = "application/json") -> Rows:
    return codecs.decode(json.dumps(value).encode(), content_type)


def refusal(body: bytes, content_type: str = "application/json") -> str:
    with pytest.raises(CallError) as raised:
        codecs.decode(body, content_type)
    assert (raised.value.status, raised.value.error_type) == (400, "BadRequestException")
    message = str(raised.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "*/*",
        "application/json",
        "Application/JSON",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; charset=latin-1; format=pandas",
    ],
)
def test_json_goes_by_these_names(content_type: str) -> None:
    assert decoded([[1.5]], content_type).values.tolist() == [[1.5]]


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_rows_may_come_in_an_envelope(key: str) -> None:
    assert decoded({key: [[1, 2], [3, 4]], "parameters": {"x": 1}}).values.tolist() == [[1, 2], [3, 4]]
    assert decoded({key: [{"age": 3}]}).names == ("age",)


def test_an_envelope_says_unambiguously_what_is_in_it() -> None:
    assert "not both" in refusal(b'{"instances": [[1]], "inputs": [[1]]}')
    assert "instances" in refusal(b'{"rows": [[1]]}')
    assert "array of rows" in refusal(b'{"inputs": 3}')


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[1, 2]], np.int64),
        ([[2**63 - 1, -(2**63)]], np.int64),
        ([[2**63, 1]], np.uint64),
        ([[2**64, 1]], np.float64),
        ([[2**63, -1]], np.float64),
        ([[1, 2.5]], np.float64),
        ([[1, None]], np.float64),
        ([[None]], np.float64),
        ([[True, False]], np.bool_),
        ([[True, 1]], np.object_),
        ([[True, None]], np.object_),
        ([["a", "b"]], np.object_),
        ([["a", 1, 2.5, True, None]], np.object_),
    ],
)
def test_values_get_the_narrowest_dtype_that_keeps_them(value: Any, dtype: type) -> None:
    assert decoded(value).values.dtype == dtype


def test_mixed_rows_keep_every_value_as_it_is() -> None:
    row = decoded([["a", 1, 2.5, True]]).values[0]
    assert [(type(value), value) for value in row] == [(str, "a"), (int, 1), (float, 2.5), (bool, True)]


def test_integers_beyond_the_precision_of_floats_are_exact() -> None:
    assert decoded([[2**53 + 1, -(2**53) - 1]]).values.tolist() == [[2**53 + 1, -(2**53) - 1]]
    assert decoded([[2**64 - 1]]).values.tolist() == [[2**64 - 1]]


def test_integers_beyond_the_range_of_floats_are_infinite() -> None:
    assert decoded([[10**400, -(10**400), 1, None, 0.5]]).values.tolist()[0][:3] == [np.inf, -np.inf, 1.0]


def test_null_is_nan_and_the_usual_literals_are_read() -> None:
    values = codecs.decode(b"[[null, NaN, Infinity, -Infinity, 1]]", "").values
    np.testing.assert_array_equal(values, [[np.nan, np.nan, np.inf, -np.inf, 1.0]])
    assert np.isnan(decoded([["a", None]]).values[0, 1])


def test_one_dimension_stays_one() -> None:
    assert decoded([1, 2, 3]).values.shape == (3,)
    assert decoded(["a", "b"]).values.tolist() == ["a", "b"]


def test_more_dimensions_are_passed_on() -> None:
    assert decoded([[[1, 2], [3, 4]]]).values.shape == (1, 2, 2)
    assert decoded([[[]]]).values.shape == (1, 1, 0)


def test_nothing_is_no_rows() -> None:
    assert decoded([]).values.shape == (0,)
    assert decoded({"instances": []}).values.shape == (0,)


def test_records_have_names() -> None:
    rows = decoded([{"age": 3, "city": "Oslo"}, {"city": None, "age": 4}])
    assert rows.names == ("age", "city")
    assert rows.values.tolist()[0] == [3, "Oslo"]
    assert rows.values[1, 0] == 4
    assert np.isnan(rows.values[1, 1])


def test_records_of_one_request_have_the_same_names() -> None:
    assert '"city"' in refusal(b'[{"age": 3, "city": "Oslo"}, {"age": 3}]')
    assert '"size"' in refusal(b'[{"age": 3}, {"age": 3, "size": 3}]')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"\xef\xbb\xbf",
        b"3",
        b'"text"',
        b"null",
        b"true",
        b"{}",
        b"[1, 2",
        b"[[1, 2]] x",
        b"[1 2]",
        b"[[1, 2], [3]]",
        b"[[1, 2], 3]",
        b"[[[1], 2]]",
        b'[[1], {"a": 1}]',
        b'[[{"a": 1}]]',
        b'[{"a": [1]}]',
        b'[{"a": {}}]',
        b"\xff\xfe[[1]]",
        b"[[1" + b"0" * 5000 + b"]]",
        b"[" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000,
        b"[" * 100 + b"]" * 100,
    ],
)
def test_what_is_no_table_is_refused(body: bytes) -> None:
    refusal(body)


def test_a_refusal_says_where_it_went_wrong() -> None:
    assert "line 1 column 4" in refusal(b"[1 2]")
    assert "lengths are 1, 2" in refusal(b"[[1, 2], [3]]")
    assert "deep" in refusal(b"[" * 10_000)


def test_a_byte_order_mark_and_whitespace_are_no_content() -> None:
    assert codecs.decode(b"\xef\xbb\xbf \r\n[[1]] \n", "").values.tolist() == [[1]]


def test_other_charsets_are_decoded_and_unknown_ones_refused() -> None:
    assert codecs.decode('["é"]'.encode("latin-1"), "application/json; charset=ISO-8859-1").values[0] == "é"
    for charset in ("klingon", "rot13", "zlib", "\0", "idna"):
        with pytest.raises(CallError) as raised:
            codecs.decode(b"[[1]]", f"application/json; charset={charset}")
        assert raised.value.status == 415


@pytest.mark.parametrize("content_type", JSON_LINES)
def test_every_json_line_is_a_row(content_type: str) -> None:
    assert codecs.decode(b"[1, 2]\r\n\n[3, 4]\n", content_type).values.tolist() == [[1, 2], [3, 4]]
    assert codecs.decode(b'{"b": 1}\n{"b": 2}', content_type).names == ("b",)
    # A row each, where an array of strings could be one row.
    assert codecs.decode(b'"some text"\n"more"', content_type).values.tolist() == [["some text"], ["more"]]
    for body in (b"", b"\n \n", b"1\n2\n", b"[1]\n2\n", b"[1]\n[1, 2]\n", b'[1]\n{"a": 1}', b"[1\n]", b'"a"\n1'):
        refusal(body, content_type)


PLAIN = arrays.arrays(
    st.sampled_from([np.float64, np.int64, np.bool_]),
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5),
)


@unhurried
@given(PLAIN)
def test_arrays_come_through_json_unchanged(array: Any) -> None:
    for body in (array.tolist(), {"instances": array.tolist()}):
        values = decoded(body).values
        assert values.dtype == array.dtype
        np.testing.assert_array_equal(values, array)


@unhurried
@given(PLAIN.filter(lambda array: array.ndim == 2))
def test_tables_come_through_json_lines_unchanged(array: Any) -> None:
    body = "\n".join(json.dumps(row) for row in array.tolist())
    np.testing.assert_array_equal(codecs.decode(body.encode(), JSON_LINES[0]).values, array)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@unhurried
@given(st.lists(st.lists(SCALARS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_whatever_is_in_a_row_keeps_its_value(rows: list[list[Any]]) -> None:
    values = decoded(rows).values
    for sent, got in zip(rows, values.tolist(), strict=True):
        for before, after in zip(sent, got, strict=True):
            if before is None:
                assert np.isnan(after)
            elif values.dtype.hasobject:
                assert type(after) is type(before)
                assert after == before
            else:
                assert after == before or after == pytest.approx(before)
