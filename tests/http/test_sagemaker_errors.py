"""boto3's exceptions for what a model does, and for a server that has no time, no room or no S3."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmserve.http.sagemaker import patience
from tests import models_for_tests as models
from tests.http import runtime
from tests.http.gates import Gate
from tests.http.runtime import ClientOf, ask, refusal
from tests.http.s3_models import put, serve_s3
from tests.s3 import S3
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import code

server, client = runtime.server, runtime.client


@pytest.mark.parametrize(
    ("body", "status", "message", "blamed"),
    [
        ("raise", 424, "shelf", "client"),
        ("400", 400, "because", "client"),
        ("404", 404, "because", "client"),
        ("503", 503, "because", "server"),
        ("302", 302, "because", "server"),
    ],
)
def test_what_a_model_answers_as_an_error_is_a_model_error(
    client: Any, body: str, status: int, message: str, blamed: str
) -> None:
    error = refusal(client, body)
    assert isinstance(error, client.exceptions.ModelError)
    response: dict[str, Any] = error.response
    assert (response["OriginalStatusCode"], response["LogStreamArn"]) == (status, "")
    assert message in response["OriginalMessage"]
    assert f"Received {blamed} error ({status}) from model" in response["Error"]["Message"]
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["ResponseMetadata"]["RetryAttempts"] == 0


def test_a_body_that_the_model_cannot_read_is_a_model_error(client: Any) -> None:
    error = refusal(client, "[[1.0", "linear.tar.gz", ContentType="application/json")
    assert isinstance(error, client.exceptions.ModelError)
    assert error.response["OriginalStatusCode"] == 400


def test_a_model_that_does_not_load_is_a_model_error(client: Any) -> None:
    error = refusal(client, model="broken.tar.gz")
    assert isinstance(error, client.exceptions.ModelError)
    assert "no such city" in error.response["OriginalMessage"]


@pytest.mark.parametrize(("request_timeout", "seconds"), [(5.0, 5.0), (59.0, 58.0), (60.0, 58.0), (300.0, 300.0)])
def test_an_answer_comes_before_boto3_gives_up(request_timeout: float, seconds: float) -> None:
    assert patience(request_timeout) == seconds


def test_a_model_that_does_not_load_in_time_is_not_ready_and_goes_on_loading(
    serve: Callable[..., Server], client_of: ClientOf, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Versions of boto3 differ in whether they ask again.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    go = tmp_path / "go"
    load = f"while not os.path.exists({str(go)!r}): time.sleep(0.002)"
    models.write_archive(store / "slow.tar.gz", files={"model.py": code(load=load)})
    server = serve(model_store=store, preload=LIGHT, request_timeout=0.5)
    client = client_of(server.url)
    error = refusal(client, model="slow.tar.gz")
    assert isinstance(error, client.exceptions.ModelNotReadyException)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    go.touch()
    wait_until(lambda: server.describe("slow")["status"] == "READY", "the model to be loaded")
    assert ask(client, "x", "slow.tar.gz")["Body"].read()


def test_a_model_that_does_not_answer_in_time_is_a_model_error(
    serve: Callable[..., Server], client_of: ClientOf, store: Path, gate: Gate
) -> None:
    gate.write_model(store / "gated")
    server = serve(model_store=store, preload=LIGHT, request_timeout=0.5)
    client = client_of(server.url)
    gate.let("first")
    assert ask(client, "first", "gated.tar.gz")["Body"].read() == b"first"
    error = refusal(client, "never", "gated.tar.gz")
    assert isinstance(error, client.exceptions.ModelError)
    assert error.response["OriginalStatusCode"] == 0
    gate.let("never")


def test_overload_is_told_with_when_to_come_back(
    serve: Callable[..., Server], client_of: ClientOf, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    gate.write_model(store / "gated", "maxWorkers=1\njob_queue_size=1")
    server = serve(model_store=store, preload=LIGHT)
    held = [threads.submit(server.client.post, "/predictions/gated", content="running")]
    gate.wait_for("running")
    held.append(threads.submit(server.client.post, "/predictions/gated", content="waiting"))
    wait_until(lambda: server.describe("gated")["requestInQueue"] == 1, "a waiting request")
    refused = server.client.post(
        "/endpoints/fleet/invocations", content="x", headers={"X-Amzn-SageMaker-Target-Model": "gated.tar.gz"}
    )
    assert (refused.status_code, refused.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert refused.headers["x-amz-retry-after"] == "1000"
    client = client_of(server.url)
    # Its second attempt comes after what it is told, when there is room again.
    retried = threads.submit(ask, client, "retried", "gated.tar.gz")
    gate.let("running", "waiting", "retried")
    answer = retried.result()
    assert answer["Body"].read() == b"retried"
    assert [response.result().text for response in held] == ["running", "waiting"]


def test_a_stopping_server_is_unavailable_and_says_so_in_its_last_answer(
    serve: Callable[..., Server], client_of: ClientOf, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    gate.write_model(store / "gated")
    server = serve(model_store=store, preload=LIGHT)
    client = client_of(server.url)
    running = threads.submit(ask, client, "running", "gated.tar.gz")
    gate.wait_for("running")
    with httpx.Client(base_url=server.url, trust_env=False) as late:
        late.get("/ping")
        server.process.terminate()
        wait_until(lambda: server.client.get("/ping").status_code == 503, "the server to be stopping")
        refused = late.post("/endpoints/fleet/invocations", content="x")
    assert (refused.status_code, refused.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert refused.headers["connection"] == "close"
    gate.let("running")
    assert running.result()["Body"].read() == b"running"


def test_what_s3_does_not_give_is_told_as_what_it_is(
    serve: Callable[..., Server], client_of: ClientOf, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("eu/shop-1", "shop-2", "shop-3"):
        put(s3, name, name)
    client = client_of(serve_s3(serve, s3).url)
    assert ask(client, "x", "eu/shop-1.tar.gz")["Body"].read() == b"eu/shop-1"
    assert isinstance(refusal(client, model="eu/shop-2.tar.gz"), client.exceptions.ValidationError)
    with s3.fault(key="fleet/shop-2.tar.gz", status=403):
        denied = refusal(client, model="shop-2.tar.gz")
    assert isinstance(denied, client.exceptions.ModelError)
    assert "shop-2.tar.gz" in denied.response["OriginalMessage"]
    with s3.away():
        assert isinstance(refusal(client, model="shop-3.tar.gz"), client.exceptions.ServiceUnavailable)
        assert ask(client, "x", "eu/shop-1.tar.gz")["Body"].read() == b"eu/shop-1"
