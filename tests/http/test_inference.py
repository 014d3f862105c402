"""The routes of the inference API, and what is said of a request that cannot be answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import Server, wait_until

ROWS = [[1.0], [2.0]]
ANSWER = {"predictions": [3.0, 5.0]}
TARGET = "X-Amzn-SageMaker-Target-Model"


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/linear",
        "/models/linear/invoke",
        "/invocations?model_name=linear",
        "/predictions/%6cinear",
        "/models/l%69near/invoke",
    ],
)
def test_a_model_is_asked_by_its_path(shared_server: Server, path: str) -> None:
    response = shared_server.client.post(path, json=ROWS)
    assert response.status_code == 200
    assert response.json() == ANSWER
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("target", ["linear", "linear.tar.gz", "/linear.tar.gz"])
def test_a_model_is_asked_by_sagemakers_header(shared_server: Server, target: str) -> None:
    response = shared_server.client.post("/invocations", json=ROWS, headers={TARGET: target})
    assert response.json() == ANSWER


def test_a_path_says_more_than_a_header(shared_server: Server) -> None:
    response = shared_server.client.post("/predictions/linear", json=ROWS, headers={TARGET: "forest"})
    assert response.json() == ANSWER


def test_the_only_model_of_a_store_need_not_be_named(serve: Callable[..., Server], store: Path) -> None:
    models.write_archive(store / "only.tar.gz", models.linear())
    server = serve(model_store=store, preload="sklearn.linear_model")
    assert server.client.post("/invocations", json=ROWS).json() == ANSWER
    models.write_archive(store / "another.tar.gz", models.linear())
    # The store is not looked at for each request.
    wait_until(lambda: server.client.post("/invocations", json=ROWS).status_code != 200, "the second one to be seen")
    assert_error(server.client.post("/invocations", json=ROWS), 400, "BadRequestException", TARGET, "model_name")


def test_one_of_several_models_has_to_be_named(shared_server: Server) -> None:
    assert_error(shared_server.client.post("/invocations", json=ROWS), 400, "BadRequestException", TARGET)


def test_ping_says_healthy(shared_server: Server) -> None:
    response = shared_server.client.get("/ping")
    assert (response.status_code, response.json()) == (200, {"status": "Healthy"})
    head = shared_server.client.head("/ping")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/predictions/no-such-model", "/models/no-such-model/invoke", "/invocations?model_name=no-such-model"],
)
def test_an_unknown_model_is_named(shared_server: Server, path: str) -> None:
    assert_error(shared_server.client.post(path, json=ROWS), 404, "ModelNotFoundException", "no-such-model")


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fstore%2flinear", "linear%00", "%ff", "a" * 300, "linear.tar.gz"])
def test_no_name_leads_out_of_the_store(shared_server: Server, name: str) -> None:
    response = shared_server.client.post("/invocations", json=ROWS, params={"model_name": name})
    assert_error(response, 404, "ModelNotFoundException")


def test_a_header_that_is_no_text_names_no_model(shared_server: Server) -> None:
    response = shared_server.client.post("/invocations", json=ROWS, headers=[(TARGET.encode(), b"\xff\xfe")])
    assert_error(response, 404, "ModelNotFoundException")


@pytest.mark.parametrize("path", ["/", "/predictions", "/predictions/", "/predictions/linear/1", "/no/such/route"])
def test_an_unknown_route_is_named(shared_server: Server, path: str) -> None:
    assert_error(shared_server.client.post(path, json=ROWS), 404, "ResourceNotFoundException", f"POST {path}")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/predictions/linear", "/models/linear/invoke", "/invocations"])
def test_models_are_asked_by_post_alone(shared_server: Server, method: str, path: str) -> None:
    response = shared_server.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    if method != "HEAD":
        assert_error(response, 405, "MethodNotAllowedException", method)


def test_ping_is_not_posted(shared_server: Server) -> None:
    assert_error(shared_server.client.post("/ping"), 405, "MethodNotAllowedException", "POST")


def test_a_request_id_is_echoed(shared_server: Server) -> None:
    for path in ("/predictions/linear", "/predictions/none", "/ping", "/models"):
        response = shared_server.client.post(path, json=ROWS, headers={"X-Request-Id": "order-66"})
        assert response.headers["x-request-id"] == "order-66"


def test_a_request_without_an_id_gets_one_of_its_own(shared_server: Server) -> None:
    ids = [
        shared_server.client.request(method, path).headers["x-request-id"]
        for method, path in [("POST", "/predictions/linear"), ("GET", "/ping"), ("GET", "/models"), ("GET", "/none")]
        for _ in range(5)
    ]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_a_request_id_that_is_no_text_does_no_harm(shared_server: Server) -> None:
    response = shared_server.client.post("/predictions/linear", json=ROWS, headers=[(b"x-request-id", b"\xff")])
    assert response.json() == ANSWER
    assert response.headers["x-request-id"]


def test_a_body_that_does_not_parse_is_refused(shared_server: Server) -> None:
    response = shared_server.client.post("/predictions/linear", content=b"[[1.0")
    assert_error(response, 400, "BadRequestException", "not JSON")


@pytest.mark.parametrize("body", [b"", b"  "])
def test_an_empty_body_is_refused(shared_server: Server, body: bytes) -> None:
    response = shared_server.client.post("/predictions/linear", content=body)
    assert_error(response, 400, "BadRequestException", "empty")


def test_a_wrong_number_of_features_is_refused(shared_server: Server) -> None:
    assert_error(shared_server.predict("linear", [[1.0, 2.0]]), 400, "BadRequestException", "2 features")


def test_an_unknown_content_type_is_refused(shared_server: Server) -> None:
    response = shared_server.predict("linear", ROWS, headers={"content-type": "application/pickle"})
    assert_error(response, 415, "UnsupportedMediaTypeException", "application/pickle")


def test_an_accept_that_cannot_be_served_is_refused(shared_server: Server) -> None:
    response = shared_server.predict("linear", ROWS, headers={"accept": "image/png"})
    assert_error(response, 406, "NotAcceptableException", "image/png")


def test_an_unknown_method_of_a_model_is_refused(shared_server: Server) -> None:
    response = shared_server.predict("linear", ROWS, params={"method": "fit"})
    assert_error(response, 400, "BadRequestException", "fit")


def test_what_a_model_does_not_survive_is_told_as_its_own_failure(serve: Callable[..., Server], store: Path) -> None:
    code = "def handle(inputs):\n    if not inputs.is_empty():\n        raise KeyError('shelf')\n"
    models.write_model(store / "raises", files={"model.py": code})
    server = serve(model_store=store, preload="numpy")
    assert_error(server.predict("raises", ROWS), 424, "KeyError", "shelf")
    assert server.client.get("/ping").status_code == 200
