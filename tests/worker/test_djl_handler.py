"""A model.py written for DJL Serving runs here unmodified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmserve_worker.calls import Reply
from tests.worker.coded import answer
from tests.worker.djl_models import Load, handling, json_of


def test_an_echo(load: Load) -> None:
    handler = load(handling("return Output().add(inputs.get_as_json())"))
    assert answer(handler, b'{"a": [1, 2.5, null]}') == Reply(200, "application/json", b'{"a":[1,2.5,null]}')


def test_submodules_can_be_imported_from_as_well(load: Load) -> None:
    source = """
        import djl_python
        from djl_python.inputs import Input as I
        from djl_python.outputs import Output as O
        from djl_python import PairList
        assert (I, O, djl_python.inputs.Input) == (Input, Output, Input)
        def handle(inputs: I) -> O:
            return O().add("ok")
    """
    assert answer(load(source)).body == b"ok"


def test_the_first_call_is_empty_and_has_the_model_s_properties(load: Load, tmp_path: Path) -> None:
    source = """
        seen = []
        def handle(inputs):
            if inputs.is_empty():
                seen.append(dict(inputs.get_properties()))
                return None
            return Output().add(seen)
    """
    handler = load(source, option_threshold="0.5", minWorkers="2")
    (properties,) = json_of(answer(handler))
    assert properties["threshold"] == "0.5"
    assert properties["minWorkers"] == "2"
    assert properties["model_dir"] == str(tmp_path)
    assert properties["handler"] == "handle"
    assert properties["device_id"] == "-1"


def test_a_request_s_properties_are_its_headers(load: Load) -> None:
    names = ["X-Tenant", "CONTENT-TYPE", "requestId", "threshold", "model_dir"]
    source = handling(f"return Output().add([inputs.get_property(name) for name in {names}])")
    handler = load(source, option_threshold="1")
    said = {"headers": {"x-tenant": "a"}, "content_type": "text/plain", "request_id": "7"}
    got = json_of(answer(handler, b"x", **said))
    assert got[:4] == ["a", "text/plain", "7", None]
    assert got[4]


@pytest.mark.parametrize(
    ("expression", "body", "expected"),
    [
        ("inputs.get_as_string()", b"caf\xc3\xa9", "café"),
        ("inputs.get_as_bytes().decode()", b"x", "x"),
        ("type(inputs.get_as_bytes()).__name__", b"x", "bytearray"),
        ("inputs.get_as_json('data')", b"[1]", [1]),
        ("inputs.get_as_csv()", b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ("inputs.get_data()", b"[1]", [1]),
        ("[inputs.is_batch(), inputs.get_batch_size(), inputs.get_batches() == [inputs]]", b"x", [False, 1, True]),
        ("[inputs.contains_key('data'), inputs.contains_key('other'), inputs.is_empty()]", b"x", [True, False, False]),
        ("inputs.get_function_name()", b"x", "handle"),
        ("[inputs.get_content().size(), inputs.get_content().key_at(0)]", b"x", [1, "data"]),
        ("inputs.get_content().get_keys()", b"x", ["data"]),
        ("sorted(set(inputs.get_properties()))[0]", b"x", "Content-Type"),
    ],
)  # fmt: skip
def test_what_an_input_gives(load: Load, expression: str, body: bytes, expected: Any) -> None:
    handler = load(handling(f"return Output().add_as_json({expression})"))
    assert json_of(answer(handler, body, content_type="application/json")) == expected


def test_a_missing_key_is_an_error(load: Load) -> None:
    reply = answer(load(handling("return Output().add(inputs.get_as_bytes('other'))")))
    assert (reply.status, reply.error_type) == (424, "KeyError")


def test_forms_are_an_entry_for_each_field(load: Load) -> None:
    source = handling("return Output().add([[k, inputs.get_as_string(k)] for k in inputs.get_content().get_keys()])")
    handler = load(source)
    reply = answer(handler, b"a=1&b=x+y&c=", content_type="application/x-www-form-urlencoded")
    assert json_of(reply) == [["a", "1"], ["b", "x y"], ["c", ""]]
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\nContent-Type: image/png\r\n\r\n'
        b"raw\r\n--XX--\r\n"
    )
    reply = answer(handler, body, content_type="multipart/form-data; boundary=XX")
    assert json_of(reply) == [["a", "1"], ["f", "raw"]]
    assert answer(handler, body, content_type="multipart/form-data").status == 400


@pytest.mark.parametrize(
    ("expression", "content_type", "body"),
    [
        ("add('text')", "text/plain", b"text"),
        ("add(b'bytes')", "application/octet-stream", b"bytes"),
        ("add(bytearray(b'bytes'))", "application/octet-stream", b"bytes"),
        ("add({'a': 1})", "application/json", b'{"a":1}'),
        ("add([1, 'é'])", "application/json", '[1,"é"]'.encode()),
        ("add_as_json(__import__('numpy').arange(3))", "application/json", b"[0,1,2]"),
        ("add_as_json([__import__('datetime').date(2024, 1, 2)])", "application/json", b'["2024-01-02"]'),
        ("add('a', key='other').add('b', key='data')", "text/plain", b"b"),
        ("add('a', key='first').add('b', key='second')", "text/plain", b"a"),
        ("add_property('content-TYPE', 'text/csv').add('1,2')", "text/csv", b"1,2"),
        ("add(None)", "", b""),
        ("set_code(201).set_message('Created').add('x')", "text/plain", b"x"),
    ],
)
def test_what_an_output_takes(load: Load, expression: str, content_type: str, body: bytes) -> None:
    reply = answer(load(handling(f"return Output().{expression}")))
    assert (reply.content_type, reply.body) == (content_type, body)
    assert reply.status == (201 if "201" in expression else 200)
    assert not reply.headers


def test_properties_are_headers(load: Load) -> None:
    reply = answer(load(handling("return Output().add('x').add_property('X-Score', 3)")))
    assert reply.headers == {"X-Score": "3"}


def test_an_error_of_the_handler_s_own_making_is_its_answer(load: Load) -> None:
    reply = answer(load(handling("return Output().error('went wrong', code=418, message='teapot')")))
    assert (reply.status, reply.content_type, reply.error_type) == (418, "application/json", "")
    assert json_of(reply) == {"code": 418, "message": "teapot", "error": "went wrong"}


def test_none_is_no_content(load: Load) -> None:
    assert answer(load(handling("return None"))) == Reply(204, "", b"")


@pytest.mark.parametrize(
    ("expression", "status", "error_type", "message"),
    [
        ("raise ValueError('mine\\nand more')", 424, "ValueError", "mine"),
        ("raise SystemExit(3)", 424, "SystemExit", "3"),
        ("raise MemoryError('much')", 507, "MemoryError", "much"),
        ("return 3", 424, "ModelException", "Invalid output type: <class 'int'>"),
        ("return Output(code=7)", 424, "ModelException", "invalid status code: 7"),
        ("return Output().add_as_json(float('nan'))", 424, "ValueError", None),
        ("return Output().add({1, 2})", 424, "TypeError", "a set has no JSON form"),
        ("return Output().add_stream_content(1 / n for n in [0])", 424, "ZeroDivisionError", "division by zero"),
    ],
)
def test_failures(load: Load, expression: str, status: int, error_type: str, message: str | None) -> None:
    reply = answer(load(handling(expression)))
    assert (reply.status, reply.error_type, reply.body) == (status, error_type, b"")
    assert message is None or reply.error == message


def test_a_body_that_curl_calls_a_form_is_read_as_it_is(load: Load) -> None:
    handler = load(handling("return Output().add_as_json(inputs.get_as_json())"))
    reply = answer(handler, b"[[1]]", content_type="application/x-www-form-urlencoded")
    assert isinstance(reply.body, bytes | bytearray)
    assert json.loads(reply.body) == [[1]]
