"""What a model may say in the headers of its answer, and what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmserve.errors import ModelFailed
from mmserve.http.model_headers import response_headers
from mmserve.scheduling.request import Answer
from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.raw import RawClient, post
from tests.servers import Server

CODE = """
import json
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    said = inputs.get_as_json()
    output = Output(said["status"])
    output.add("answer")
    for name, value in said["headers"].items():
        output.add_property(name, value)
    return output
"""


def headers_of(content_type: str = "text/plain", **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return response_headers(Answer(200, content_type, named, b""), "id-1")


def test_a_models_headers_are_sent() -> None:
    assert headers_of(X_Shard="7", Cache_Control="no-store") == {
        "x-request-id": "id-1",
        "Content-Type": "text/plain",
        "X-Shard": "7",
        "Cache-Control": "no-store",
    }


@pytest.mark.parametrize("name", ["Content_Length", "transfer_encoding", "Connection", "X_Request_Id", "Upgrade"])
def test_how_an_answer_is_sent_is_not_the_models_to_say(name: str) -> None:
    assert headers_of(**{name: "5"}) == {"x-request-id": "id-1", "Content-Type": "text/plain"}


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b", "\ud800"])
def test_what_cannot_be_sent_is_the_models_failure(value: str) -> None:
    with pytest.raises(ModelFailed, match="X-Odd"):
        headers_of(X_Odd=value)
    with pytest.raises(ModelFailed, match="Content-Type"):
        headers_of(value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä"])
def test_a_name_that_is_none_is_the_models_failure(name: str) -> None:
    with pytest.raises(ModelFailed):
        headers_of(**{name: "1"})


def test_an_answer_without_content_has_no_content_type() -> None:
    assert headers_of("") == {"x-request-id": "id-1"}


def test_no_header_of_a_model_costs_its_caller_the_answer(serve: Callable[..., Server], store: Path) -> None:
    models.write_model(store / "headers", files={"model.py": CODE})
    server = serve(model_store=store, preload="numpy")
    with RawClient(server) as client:
        for status, headers, expected in [
            (200, '{"X-Shard": "7", "Content-Length": "3", "Transfer-Encoding": "chunked"}', 200),
            (200, '{"X-Shard": "7\\r\\nX-Smuggled: 1"}', 424),
            (418, "{}", 418),
            (204, "{}", 204),
            (304, "{}", 304),
            (200, '{"X-Last": "1"}', 200),
        ]:
            body = f'{{"status": {status}, "headers": {headers}}}'.encode()
            client.send(post("/predictions/headers", body))
            response = client.response()
            assert response.status == expected
            if expected == 424:
                assert_error(response, 424, "ModelException", "X-Shard")
            elif expected in (200, 418):
                assert response.body == b"answer"
