"""What CSV bodies become."""

from __future__ import annotations

import csv
import io
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


def decoded(text: str, *names: str) -> Rows:
    return codecs.decode(text.encode(), "text/csv; charset=utf-8", names)


@pytest.mark.parametrize("text", ["1,2\n3,4", "1,2\r\n3,4\r\n", "1,2\n\n3,4\n\n", '"1",2\n3,"4"', "\ufeff1,2\n3,4"])
def test_lines_are_rows(text: str) -> None:
    rows = decoded(text)
    assert rows.values.tolist() == [[1, 2], [3, 4]]
    assert rows.values.dtype == np.int64


def test_numbers_are_floats_where_one_of_them_is() -> None:
    assert decoded("1,2.5\n3,4").values.dtype == np.float64
    np.testing.assert_array_equal(decoded("1,\n nan ,-inf\n").values, [[1, np.nan], [np.nan, -np.inf]])


def test_columns_are_typed_one_by_one() -> None:
    rows = decoded("1,Oslo,true\n2,,False\n").values.tolist()
    assert rows[0] == [1, "Oslo", True]
    assert type(rows[0][0]) is int
    assert rows[1][0] == 2
    assert np.isnan(rows[1][1])
    assert rows[1][2] is False
    # One field that is no number makes its column text, as it would for whoever fitted the model on such a file.
    assert decoded("1,a\nx,b").values.tolist() == [["1", "a"], ["x", "b"]]


def test_python_s_own_ways_of_writing_numbers_are_text() -> None:
    assert decoded("1_000,2").values.tolist() == [["1_000", 2]]


def test_quoted_fields_hold_commas_quotes_and_lines() -> None:
    assert decoded('"a,b",1\n"say ""x""\nagain",2').values.tolist() == [["a,b", 1], ['say "x"\nagain', 2]]


def test_a_first_line_without_numbers_above_numbers_is_a_header() -> None:
    assert decoded("age,size\n1,2\n3,4").values.tolist() == [[1, 2], [3, 4]]
    assert decoded("city,size\nOslo,2\n").values.tolist() == [["Oslo", 2]]
    assert decoded(",size\n0,2\n").values.tolist() == [[0, 2]]


def test_a_first_line_with_a_number_or_above_texts_is_a_row() -> None:
    assert decoded("Oslo,1\nBergen,2").values.tolist() == [["Oslo", 1], ["Bergen", 2]]
    assert decoded("a,b\nc,d").values.tolist() == [["a", "b"], ["c", "d"]]
    assert decoded("a,b").values.tolist() == [["a", "b"]]
    np.testing.assert_array_equal(decoded("nan\n1\n").values, [[np.nan], [1]])
    np.testing.assert_array_equal(decoded(",\n1,2\n").values, [[np.nan, np.nan], [1, 2]])


def test_the_model_s_names_are_a_header_in_any_order() -> None:
    rows = decoded("size, age\n1,2\n", "age", "size")
    assert rows.names == ("size", "age")
    assert rows.values.tolist() == [[1, 2]]
    assert decoded("b,a\nx,y\n", "a", "b").values.tolist() == [["x", "y"]]
    assert decoded("b,a\n", "a", "b").values.shape == (0, 2)


def test_a_header_of_other_names_is_told_to_models_that_know_names_only() -> None:
    assert decoded("x,y\n1,2\n", "a", "b").names == ("x", "y")
    assert decoded("x,y\n1,2\n").names == ()


@pytest.mark.parametrize("text", ["", "\n\n", "1,2\n3", "1\n2,3", '"1,2', '1,"2"3', "1," + "9" * 200_000])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(CallError) as raised:
        decoded(text)
    assert raised.value.status == 400


def test_a_ragged_row_is_named() -> None:
    with pytest.raises(CallError, match="row 2 has 1 fields, the first 2"):
        decoded("1,2\n3")


@unhurried
@given(
    arrays.arrays(
        st.sampled_from([np.float64, np.int64]), arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)
    )
)
def test_tables_come_through_csv_unchanged(array: Any) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(array.tolist())
    np.testing.assert_array_equal(decoded(text.getvalue()).values, array)


@unhurried
@given(st.lists(st.lists(st.text(alphabet="ab ,\"'\n\r\té"), min_size=2, max_size=2), min_size=1, max_size=5))
def test_texts_come_through_csv_unchanged(rows: list[list[str]]) -> None:
    marked = [[f"x{field}" for field in row] for row in rows]
    text = io.StringIO(newline="")
    csv.writer(text).writerows(marked)
    assert decoded(text.getvalue()).values.tolist() == marked


@pytest.mark.parametrize("header", ["city,color", "City,Colour", "colour,age", "colour"])
def test_a_header_that_is_not_quite_the_model_s_is_no_row(header: str) -> None:
    """Its names are handed on, for the model to refuse; as a row it would be answered."""
    row = ",".join("x" for _ in header.split(","))
    rows = codecs.decode(f"{header}\n{row}\n".encode(), "text/csv", ("city", "colour"))
    assert len(rows.values) == 1
    assert rows.names == tuple(header.split(","))
