"""What of an HTTP request reaches a model.py, and what of its answer comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.models_for_tests import write_model
from tests.servers import LIGHT, Server, wait_until

_TELLING = """
import os
from djl_python import Output

started = []

def fail():
    raise RuntimeError("after the answer")

def handle(inputs):
    if inputs.is_empty():
        started.append(inputs.get_property("threshold"))
        return None
    content = inputs.get_content()
    told = {
        "content": [[key, inputs.get_as_string(key)] for key in content.get_keys()],
        "properties": inputs.get_properties(),
        "cwd": os.getcwd(),
        "started": started,
    }
    output = Output().add_as_json(told).add_property("x-score", 0.5)
    return output.finalize(fail) if inputs.contains_key("fail") else output
"""


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    store = tmp_path_factory.mktemp("store")
    write_model(store / "telling", files={"model.py": _TELLING, "serving.properties": "option.threshold=0.5\n"})
    return serve_module(model_store=store, preload=LIGHT)


def test_query_headers_and_attributes_reach_the_handler(server: Server) -> None:
    headers = {"X-Tenant": "a", "X-Amzn-SageMaker-Custom-Attributes": "trace=1;user=b"}
    response = server.client.post("/predictions/telling?top=3&label=a%20b", content=b"body", headers=headers)
    assert (response.status_code, response.headers["x-score"]) == (200, "0.5")
    told = response.json()
    assert told["content"] == [["top", "3"], ["label", "a b"], ["data", "body"]]
    properties = told["properties"]
    assert (properties["trace"], properties["user"]) == ("1", "b")
    assert properties["requestId"] == response.headers["x-request-id"]
    assert {name.lower(): value for name, value in properties.items()}["x-tenant"] == "a"
    assert told["cwd"] == properties["model_dir"]
    assert told["started"] == ["0.5"]


def test_fields_of_a_form_reach_the_handler_one_by_one(server: Server) -> None:
    response = server.client.post("/predictions/telling?q=1", data={"a": "1", "b": "x y"})
    assert response.json()["content"] == [["q", "1"], ["a", "1"], ["b", "x y"]]
    files = {"f": ("f.bin", b"raw", "application/octet-stream")}
    response = server.client.post("/predictions/telling", data={"a": "1"}, files=files)
    assert response.json()["content"] == [["a", "1"], ["f", "raw"]]


def test_what_raises_after_the_answer_is_in_the_log_and_the_worker_goes_on(server: Server) -> None:
    assert server.client.post("/predictions/telling?fail=1", content=b"x").status_code == 200
    (pid,) = server.worker_pids("telling")
    wait_until(lambda: "RuntimeError: after the answer" in server.log.read_text(), "a word in the log")
    assert server.client.post("/predictions/telling", content=b"x").status_code == 200
    assert server.worker_pids("telling") == [pid]
