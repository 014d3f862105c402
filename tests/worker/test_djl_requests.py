"""What a model.py finds in an Input: properties and content of a request."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.worker.coded import answer
from tests.worker.djl_models import Load, handling, json_of
from tests.worker.handled import call

PROPERTIES = handling("return Output().add_as_json(inputs.get_properties())")
CONTENT = handling(
    "return Output().add_as_json([[k, inputs.get_as_string(k)] for k in inputs.get_content().get_keys()])"
)


def test_headers_and_what_the_server_adds_are_properties(load: Load, tmp_path: Path) -> None:
    said = {"headers": {"X-Tenant": "a", "content-type": "text/csv"}, "content_type": "text/csv", "accept": "text/csv"}
    assert json_of(answer(load(PROPERTIES, option_threshold="1"), b"x", request_id="7", **said)) == {
        "X-Tenant": "a",
        "content-type": "text/csv",
        "Accept": "text/csv",
        "requestId": "7",
        "handler": "handle",
        "device_id": "-1",
        "model_dir": str(tmp_path),
        "cluster_size": "1",
    }


def test_custom_attributes_are_properties_of_their_own(load: Load) -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "a=b; c = d=e;nothing;=;f=", "A": "said before"}
    found = json_of(answer(load(PROPERTIES), headers=headers))
    assert (found["A"], found["c"]) == ("said before", "d=e")
    assert not {"a", "nothing", "", "f"} & found.keys()


@pytest.mark.parametrize("name", ["Model_Dir", "handler", "BATCH_SIZE", "device_id", "RequestID"])
def test_a_caller_says_nothing_in_the_server_s_place(load: Load, name: str) -> None:
    source = handling(f"return Output().add_as_json([inputs.get_property({name!r}), inputs.is_batch()])")
    for headers in ({name: "mine"}, {"x-amzn-sagemaker-custom-attributes": f"{name}=mine"}):
        found, is_batch = json_of(answer(load(source), headers=headers))
        assert found != "mine"
        assert not is_batch


def test_parameters_of_the_query_are_content_before_the_body(load: Load) -> None:
    handler = load(CONTENT)
    query = (("a", "1"), ("b", "é"), ("a", "2"))
    assert json_of(answer(handler, b"body", query=query)) == [["a", "1"], ["b", "é"], ["a", "1"], ["data", "body"]]
    first = load(handling("return Output().add(inputs.get_as_string())"))
    assert answer(first, b"body", query=query).body == b"body"
    assert answer(first, b"", query=query).body == b"1"
    form = {"content_type": "application/x-www-form-urlencoded"}
    assert json_of(answer(handler, b"c=3", query=query[:1], **form)) == [["a", "1"], ["c", "3"]]


def test_a_batch_keeps_everybody_s_properties_and_content_apart(load: Load) -> None:
    source = """
        def handle(inputs):
            if inputs.is_empty():
                return None
            output = Output()
            for index, one in enumerate(inputs.get_batches()):
                told = [one.get_property("x-n"), one.get_property("requestId"), one.get_as_string("q")]
                output.add_as_json(told + [one.get_as_string(), one.get_batch_size()], batch_index=index)
            return output
    """
    calls = [
        call(f"body {n}".encode(), headers={"X-N": str(n)}, request_id=f"id-{n}", query=(("q", f"q{n}"),))
        for n in range(3)
    ]
    replies = load(source, batch_size="4").answer(calls)
    assert [json_of(reply) for reply in replies] == [[str(n), f"id-{n}", f"q{n}", f"body {n}", 1] for n in range(3)]


# Every method of the Input, on a body of some content type.
@pytest.mark.parametrize(
    ("expression", "content_type", "body", "expected"),
    [
        ("inputs.get_data()", "application/json; charset=utf-8", b'{"a": 1}', {"a": 1}),
        ("inputs.get_data()", "text/plain", b"text", "text"),
        ("inputs.get_data()", "text/csv", b"a,b", "a,b"),
        ("inputs.get_data().decode()", "application/octet-stream", b"raw", "raw"),
        ("[a.tolist() for a in inputs.get_data()]", "tensor/ndlist", "Output().add_as_numpy([N.eye(1)])", [[[1.0]]]),
        ("[a.tolist() for a in inputs.get_data()]", "tensor/npz", "Output().add_as_npz([N.eye(1)])", [[[1.0]]]),
        ("[a.tolist() for a in inputs.get_as_npz('data')]", "", "Output().add_as_npz([N.arange(2)])", [[0, 1]]),
        ("[a.tolist() for a in inputs.get_as_numpy('data')]", "", "Output().add_as_numpy(N.arange(2))", [[0, 1]]),
        ("inputs.get_as_csv('data')", "text/csv", b"a,b\n1,\"x,y\"\n", [{"a": "1", "b": "x,y"}]),
        ("inputs.get_property('CONTENT-type')", "text/x", b"x", "text/x"),
        ("inputs.get_property('missing')", "text/x", b"x", None),
        ("inputs.get_properties()['Content-Type']", "text/x", b"x", "text/x"),
        ("inputs.get_content().get('data').decode()", "", b"x", "x"),
        ("str(inputs).startswith('Input(')", "", b"x", True),
        ("inputs.function_name", "", b"x", "handle"),
        ("[inputs.content.size(), list(inputs.properties) != []]", "", b"x", [1, True]),
    ],
)  # fmt: skip
def test_every_way_to_read_a_request(
    load: Load, expression: str, content_type: str, body: bytes | str, expected: Any
) -> None:
    if isinstance(body, str):
        made = load(handling(f"import numpy as N; return {body}"))
        (reply,) = made.answer([call(b"x")])
        assert isinstance(reply.body, bytes)
        body = reply.body
    handler = load(handling(f"return Output().add_as_json({expression})"))
    assert json_of(answer(handler, body, content_type=content_type)) == expected


def test_an_image_is_opened(load: Load) -> None:
    file = io.BytesIO()
    Image.new("RGB", (2, 3)).save(file, "PNG")
    handler = load(handling("return Output().add_as_json([inputs.get_data().size, inputs.get_as_image('data').size])"))
    assert json_of(answer(handler, file.getvalue(), content_type="image/png")) == [[2, 3], [2, 3]]


def test_nothing_is_read_out_of_an_empty_input(load: Load) -> None:
    source = """
        def handle(inputs):
            assert inputs.is_empty() and not inputs.contains_key("data") and not inputs.is_batch()
            read = [inputs.get_data(), inputs.get_as_bytes(), inputs.get_as_string(), inputs.get_as_json()]
            return Output().add_as_json(read + [inputs.get_as_numpy(), inputs.get_as_npz(), inputs.get_as_csv()])
    """
    assert json.loads(str(json_of(answer(load(source), b""))).replace("None", "null")) == [None] * 4 + [[]] * 3
