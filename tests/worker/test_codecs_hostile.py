"""Bodies and headers of callers who mean harm, or whose client is broken: nothing but CallError comes of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmserve_worker import codecs
from mmserve_worker.calls import CallError
from tests.worker.unhurried import unhurried

TYPES = ["", "text/csv", "application/jsonlines", "application/x-npy", "application/x-npz"]


def valid(content_type: str) -> bytes:
    file = io.BytesIO()
    if content_type == "application/x-npy":
        np.save(file, np.arange(6.0).reshape(2, 3))
    elif content_type == "application/x-npz":
        np.savez_compressed(file, data=np.arange(6.0).reshape(2, 3), x=np.eye(2))
    else:
        return {
            "": b'{"instances": [[1, 2.5, null], [NaN, -1e5, 0]], "x": {"y": [true, "\\u00e9"]}}',
            "text/csv": b'a,"b ""c""",d\r\n1,2.5,x\r\n,-1e5,"y\nz"\r\n',
            "application/jsonlines": b'{"a": 1, "b": "x"}\n{"a": 2, "b": null}\n',
        }[content_type]
    return file.getvalue()


def decode(body: bytes, content_type: str, names: tuple[str, ...] = ()) -> None:
    with contextlib.suppress(CallError):
        rows = codecs.decode(memoryview(body), content_type, names)
        assert rows.values.ndim >= 1


@unhurried
@given(st.binary(max_size=200), st.sampled_from(TYPES))
def test_random_bytes(body: bytes, content_type: str) -> None:
    decode(body, content_type)


@unhurried
@given(st.text('[]{}",:0123456789.eE+-naulrtfs\\ \n\r', max_size=60), st.sampled_from(TYPES[:3]))
def test_random_text(text: str, content_type: str) -> None:
    decode(text.encode(), content_type, ("a", "b"))


@settings(unhurried, max_examples=400)
@given(st.data(), st.sampled_from(TYPES))
def test_valid_bodies_with_a_few_bytes_changed(data: Any, content_type: str) -> None:
    body = bytearray(valid(content_type))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["replace", "delete", "insert", "cut"]))
        if change == "replace":
            body[at] = data.draw(st.integers(0, 255))
        elif change == "delete" and len(body) > 1:
            del body[at]
        elif change == "insert":
            body.insert(at, data.draw(st.integers(0, 255)))
        elif change == "cut":
            del body[at + 1 :]
    decode(bytes(body), content_type)


@pytest.mark.parametrize("content_type", TYPES)
def test_what_the_mutations_start_from_is_valid(content_type: str) -> None:
    assert len(codecs.decode(valid(content_type), content_type).values) == 2


@pytest.mark.parametrize("opening", ["[", "{", '{"a":', "[[", '[{"a":', "(", '"', "\\"])
@pytest.mark.parametrize("content_type", TYPES[:3])
def test_nesting_ten_thousand_deep(opening: str, content_type: str) -> None:
    decode(opening.encode() * 10_000, content_type)


@unhurried
@given(st.text(max_size=80))
def test_any_content_type(content_type: str) -> None:
    with contextlib.suppress(CallError):
        codecs.decode(b"[[1]]", content_type)


@unhurried
@given(st.text(max_size=80) | st.text('text/csv,;=q01.* "', max_size=40))
def test_any_accept(accept: str) -> None:
    with contextlib.suppress(CallError):
        codecs.writer(accept)(np.array([1.0]))


@pytest.mark.parametrize(
    "content_type", ["text/html", "application/xml", "application/octet-stream", "json", "text/csv2", ";"]
)
def test_other_content_types_are_refused_by_name(content_type: str) -> None:
    if content_type == ";":
        assert codecs.decode(b"[[1]]", content_type).values.tolist() == [[1]]
        return
    with pytest.raises(CallError) as raised:
        codecs.decode(b"[[1]]", content_type)
    assert (raised.value.status, raised.value.error_type) == (415, "UnsupportedMediaTypeException")
    assert content_type in str(raised.value)
    assert "application/json" in str(raised.value)
