"""In which format an answer goes out, and what it says there; read back by parsers that are not ours."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmserve_worker import codecs
from mmserve_worker.calls import CallError, Reply
from tests.worker.unhurried import unhurried

NPY = "application/x-npy"


def written(answer: Any, accept: str = "") -> Reply:
    return codecs.writer(accept)(answer)


def text_of(answer: Any, accept: str = "") -> str:
    body = written(answer, accept).body
    assert isinstance(body, bytes)
    return body.decode()


def predictions(answer: Any) -> Any:
    return json.loads(text_of(answer), parse_constant=pytest.fail)["predictions"]


def load(reply: Reply) -> Any:
    assert isinstance(reply.body, tuple)
    return np.load(io.BytesIO(b"".join(reply.body)), allow_pickle=False)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON; charset=utf-8", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv", "text/csv"),
        ("application/jsonlines", "application/jsonlines"),
        ("application/x-ndjson", "application/x-ndjson"),
        (NPY, NPY),
        ("text/html, image/png, text/csv", "text/csv"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/csv, application/json", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.9", "application/json"),
        ("application/json;q=0.1, text/csv; q=0.2 ; x=y", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
        ("application/*;q=0.2, application/x-npy;q=0.1, text/csv;q=0.15", "application/json"),
        ("text/csv;q=nonsense", "text/csv"),
        (",,", "application/json"),
    ],
)
def test_the_accept_header_chooses(accept: str, content_type: str) -> None:
    assert written(np.array([1.0]), accept).content_type == content_type


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "*/*;q=0", "image/*", "nonsense", "text/csv;q=0.000"]
)
def test_what_cannot_be_served_is_refused(accept: str) -> None:
    with pytest.raises(CallError) as raised:
        codecs.writer(accept)
    assert (raised.value.status, raised.value.error_type) == (406, "NotAcceptableException")


def test_json_has_an_entry_for_each_row() -> None:
    assert text_of(np.array([0.5, 2.0])) == '{"predictions": [0.5, 2.0]}'
    assert predictions(np.array([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert predictions(np.array(["a", "b"])) == ["a", "b"]
    assert predictions(np.array([True, False])) == [True, False]
    assert predictions(np.empty(0)) == []


def test_json_has_null_for_what_is_no_number() -> None:
    odd = np.array([[np.nan, np.inf], [-np.inf, 1e300]])
    assert predictions(odd) == [[None, None], [None, 1e300]]
    assert text_of(odd, "application/jsonlines") == "[null, null]\n[null, 1e+300]\n"
    assert predictions(np.array(["nan", np.nan, np.float32(np.nan), None, 3], object)) == ["nan", None, None, None, 3]


def test_csv_and_npy_keep_what_is_no_number() -> None:
    odd = np.array([np.nan, np.inf, -np.inf])
    assert text_of(odd, "text/csv") == "nan\ninf\n-inf\n"
    np.testing.assert_array_equal(load(written(odd, NPY)), odd)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.int8, np.uint64, np.float16])
def test_numbers_of_every_size_are_written(dtype: Any) -> None:
    array = np.array([1, 2, 3], dtype)
    assert predictions(array) == [1, 2, 3]
    assert load(written(array, NPY)).dtype == array.dtype


def test_integers_are_exact() -> None:
    assert predictions(np.array([2**63 - 1, -(2**63)])) == [2**63 - 1, -(2**63)]
    assert text_of(np.array([2**64 - 1], np.uint64), "text/csv") == f"{2**64 - 1}\n"


def test_other_types_of_objects_have_a_form() -> None:
    pandas = pytest.importorskip("pandas")
    objects = np.array(
        [np.int64(3), np.array([1, 2]), b"x", pandas.NA, pandas.NaT, complex(1, 2), np.bool_(True)], object
    )
    assert predictions(objects) == [3, [1, 2], "x", None, None, "(1+2j)", True]
    assert predictions(np.array(["2024-01-02"], "M8[D]")) == ["2024-01-02"]
    assert predictions(np.array([b"a"])) == ["a"]


def test_complex_numbers_are_for_npy() -> None:
    array = np.array([1 + 2j])
    with pytest.raises(CallError) as raised:
        written(array)
    assert raised.value.status == 406
    assert load(written(array, NPY)) == array


def test_objects_go_into_npy_as_what_they_are() -> None:
    assert load(written(np.array(["a", "bc"], object), NPY)).tolist() == ["a", "bc"]
    assert load(written(np.array([""], object), NPY)).tolist() == [""]
    assert load(written(np.array([[1, 2]], object), NPY)).dtype == np.int64
    assert load(written(np.array([np.float64(1.5)], object), NPY)).dtype == np.float64
    with pytest.raises(CallError) as raised:
        written(np.array([1, "a"], object), NPY)
    assert raised.value.status == 406


def test_several_outputs_are_nested_in_json_and_side_by_side_elsewhere() -> None:
    outputs = [np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])]
    assert predictions(outputs)[0] == [[0.25, 0.75], [0.5, 0.25, 0.25]]
    assert text_of(outputs, "application/jsonlines").splitlines()[1] == "[[1.0, 0.0], [0.0, 1.0, 0.0]]"
    assert text_of(outputs, "text/csv").splitlines()[0] == "0.25,0.75,0.5,0.25,0.25"
    assert load(written(outputs, NPY)).shape == (2, 5)


def test_more_dimensions_are_flattened_in_csv_only() -> None:
    cube = np.arange(8).reshape(2, 2, 2)
    assert text_of(cube, "text/csv") == "0,1,2,3\n4,5,6,7\n"
    assert predictions(cube) == cube.tolist()


def test_npy_is_the_array_s_own_memory() -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))):
        body = written(array, NPY).body
        assert isinstance(body, tuple)
        assert np.may_share_memory(np.frombuffer(body[1], np.uint8), array)
        assert len(body[0]) % 64 == 0


NUMBERS = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_]),
    arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5),
)


@unhurried
@given(NUMBERS)
def test_every_format_says_the_same(array: Any) -> None:
    expected = np.where(np.isfinite(array), array, np.nan)
    from_json = np.array(predictions(array), np.float64).reshape(array.shape)
    np.testing.assert_array_equal(from_json, expected)
    lines = [json.loads(line) for line in text_of(array, "application/x-jsonlines").splitlines()]
    np.testing.assert_array_equal(np.array(lines, np.float64).reshape(array.shape), expected)
    np.testing.assert_array_equal(load(written(array, NPY)), array)


@unhurried
@given(NUMBERS.filter(lambda array: array.size and array.dtype != np.bool_))
def test_csv_answers_are_read_back(array: Any) -> None:
    read = np.loadtxt(io.StringIO(text_of(array, "text/csv")), delimiter=",", dtype=np.longdouble, ndmin=array.ndim)
    np.testing.assert_array_equal(read.reshape(array.shape).astype(array.dtype), array)


@unhurried
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1))
def test_texts_are_read_back(labels: list[str]) -> None:
    array = np.array(labels, object)
    assert predictions(array) == labels
    lines = text_of(array, "application/jsonlines").split("\n")[:-1]
    assert [json.loads(line) for line in lines] == labels
    rows = list(csv.reader(io.StringIO(text_of(array, "text/csv"), newline="")))
    assert [row[0] for row in rows] == labels
