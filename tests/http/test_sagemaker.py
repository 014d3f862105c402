"""boto3's `sagemaker-runtime`, unmodified: what it asks, what it gets, and its exceptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from mmserve.http.sagemaker import patience
from tests import models_for_tests as models
from tests.http.gates import Gate
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import code

# A handler that does what its text says.
_HANDLER = """\
if asked == "headers":
    return Output().add_as_json(dict(inputs.get_properties()))
if asked == "session":
    return (Output().add("hello").add_property("X-Amzn-SageMaker-New-Session-Id", "s-1; Expires=2030-01-01T00:00:00Z")
        .add_property("X-Amzn-SageMaker-Custom-Attributes", "trace=7").add_property("X-Amzn-RequestId", "mine"))
if asked == "none":
    return None
if asked == "raise":
    raise KeyError("shelf")
if asked.isdigit():
    output = Output(code=int(asked)).add("because")
    return output
return Output().add(asked)"""


def client_of(url: str | None, **environment: Any) -> Any:
    """As everybody makes it; credentials and region are only there because boto3 signs."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        **environment,
    )


@pytest.fixture(autouse=True)
def _default_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's own, whatever the host has."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    store = tmp_path_factory.mktemp("store")
    models.write_archive(store / "linear.tar.gz", models.linear())
    (store / "eu" / "north").mkdir(parents=True)
    models.write_archive(store / "eu" / "north" / "linear.tar.gz", models.linear(slope=5.0))
    models.write_archive(store / "coded.tar.gz", files={"model.py": code(_HANDLER)})
    models.write_archive(store / "broken.tar.gz", files={"model.py": "raise RuntimeError('no such city')"})
    return serve_module(model_store=store, preload="sklearn.linear_model", max_request_size=100_000)


@pytest.fixture(scope="module")
def _client(server: Server) -> Iterator[Any]:
    client = client_of(server.url)
    yield client
    client.close()


@pytest.fixture
def client(_client: Any) -> Any:
    return _client


def ask(client: Any, body: str | bytes, model: str = "coded.tar.gz", **said: Any) -> dict[str, Any]:
    asked = {"EndpointName": "fleet", "TargetModel": model, "ContentType": "text/plain", "Body": body, **said}
    answer: dict[str, Any] = client.invoke_endpoint(**asked)
    return answer


def refusal(client: Any, body: str | bytes = "x", model: str = "coded.tar.gz", **said: Any) -> ClientError:
    with pytest.raises(ClientError) as raised:
        ask(client, body, model, **said)
    assert raised.value.response["ResponseMetadata"]["RequestId"]
    return raised.value


def test_a_model_is_invoked_by_its_key(client: Any) -> None:
    answer = client.invoke_endpoint(
        EndpointName="any/name at all",
        TargetModel="linear.tar.gz",
        ContentType="application/json",
        Accept="application/json",
        Body=json.dumps([[1.0], [2.0]]),
    )
    assert json.loads(answer["Body"].read()) == {"predictions": [3.0, 5.0]}
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/json", "AllTraffic")
    metadata = answer["ResponseMetadata"]
    assert (metadata["HTTPStatusCode"], metadata["RetryAttempts"]) == (200, 0)
    assert metadata["RequestId"] == metadata["HTTPHeaders"]["x-request-id"]


@pytest.mark.parametrize("key", ["eu/north/linear.tar.gz", "/eu/north/linear.tar.gz"])
def test_a_key_may_have_prefixes(client: Any, key: str) -> None:
    answer = client.invoke_endpoint(EndpointName="fleet", TargetModel=key, Body=b"[[1.0]]")
    assert json.loads(answer["Body"].read()) == {"predictions": [6.0]}


def test_what_can_be_left_out_is(client: Any) -> None:
    answer = client.invoke_endpoint(EndpointName="fleet", TargetModel="linear.tar.gz", Body=b"[[1.0]]")
    assert json.loads(answer["Body"].read()) == {"predictions": [3.0]}


def test_the_endpoint_may_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    client = client_of(None)
    assert ask(client, "2.0", "linear.tar.gz", ContentType="text/csv")["Body"].read()
    client.close()


def test_answers_are_in_the_format_that_is_accepted(client: Any) -> None:
    answer = ask(client, "1.0\n2.0\n", "linear.tar.gz", ContentType="text/csv", Accept="text/csv")
    assert (answer["ContentType"], answer["Body"].read()) == ("text/csv", b"3.0\n5.0\n")


def test_the_models_code_gets_what_the_client_says(client: Any) -> None:
    answer = ask(
        client,
        "headers",
        CustomAttributes="trace=6",
        InferenceId="order-66",
        TargetVariant="blue",
        SessionId="NEW_SESSION",
    )
    got = {name.lower(): value for name, value in json.loads(answer["Body"].read()).items()}
    assert got["x-amzn-sagemaker-custom-attributes"] == "trace=6"
    assert got["x-amzn-sagemaker-inference-id"] == "order-66"
    assert got["x-amzn-sagemaker-session-id"] == "NEW_SESSION"
    assert got["x-amzn-sagemaker-target-model"] == "coded.tar.gz"
    assert answer["InvokedProductionVariant"] == "blue"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-sagemaker-inference-id"] == "order-66"
    assert not {"CustomAttributes", "NewSessionId", "ClosedSessionId"} & answer.keys()


def test_the_client_gets_what_the_models_code_says(client: Any) -> None:
    answer = ask(client, "session")
    assert answer["NewSessionId"] == "s-1; Expires=2030-01-01T00:00:00Z"
    assert answer["CustomAttributes"] == "trace=7"
    assert answer["Body"].read() == b"hello"
    # The id is the server's to say.
    assert answer["ResponseMetadata"]["RequestId"] == answer["ResponseMetadata"]["HTTPHeaders"]["x-request-id"]
    assert answer["ResponseMetadata"]["RequestId"] != "mine"


def test_no_content_is_an_answer(client: Any) -> None:
    answer = ask(client, "none")
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Body"].read()) == (204, b"")


def test_an_inference_component_is_a_model(client: Any) -> None:
    answer = client.invoke_endpoint(EndpointName="fleet", InferenceComponentName="linear", Body=b"[[1.0]]")
    assert json.loads(answer["Body"].read()) == {"predictions": [3.0]}


@pytest.mark.parametrize("target", ["none.tar.gz", "../store/linear.tar.gz", "ünïcode.tar.gz", "eu/none.tar.gz"])
def test_a_model_that_is_not_there_is_a_validation_error(client: Any, target: str) -> None:
    error = refusal(client, model=target)
    assert isinstance(error, client.exceptions.ValidationError)
    assert error.response["Error"]["Code"] == "ValidationError"
    assert error.response["Error"]["Message"].startswith("Failed to download model data")
    assert target in error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error.response["ResponseMetadata"]["RetryAttempts"] == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"TargetModel": "a" * 1025}, "1024"),
        ({"CustomAttributes": "a" * 1025}, "1024"),
        ({"InferenceId": "a" * 65}, "64"),
        ({"TargetContainerHostname": "second"}, "TargetContainerHostname"),
        ({"EnableExplanations": "`true`"}, "EnableExplanations"),
    ],
)
def test_what_cannot_be_had_is_a_validation_error(client: Any, said: dict[str, str], reason: str) -> None:
    error = refusal(client, **said)
    assert isinstance(error, client.exceptions.ValidationError)
    assert reason in error.response["Error"]["Message"]


def test_one_of_several_models_has_to_be_named(client: Any) -> None:
    with pytest.raises(client.exceptions.ValidationError, match="Target-Model"):
        client.invoke_endpoint(EndpointName="fleet", Body=b"[[1.0]]")


def test_a_body_that_is_too_large_is_a_validation_error(client: Any) -> None:
    error = refusal(client, "x" * 100_001)
    assert isinstance(error, client.exceptions.ValidationError)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 413


@pytest.mark.parametrize("said", [{}, {"TargetContainerHostname": "second"}])
def test_a_large_body_that_nobody_reads_does_not_keep_the_answer_from_its_client(
    client: Any, said: dict[str, str]
) -> None:
    assert isinstance(refusal(client, b"x" * 6_000_000, **said), client.exceptions.ValidationError)


def test_streams_and_asynchronous_calls_are_refused_by_name(client: Any) -> None:
    with pytest.raises(client.exceptions.ClientError, match="InvokeEndpointWithResponseStream") as streaming:
        client.invoke_endpoint_with_response_stream(EndpointName="fleet", Body=b"x")
    with pytest.raises(client.exceptions.ClientError, match="InvokeEndpointAsync") as deferred:
        client.invoke_endpoint_async(EndpointName="fleet", InputLocation="s3://bucket/key")
    for raised in (streaming, deferred):
        assert raised.value.response["Error"]["Code"] == "ValidationError"


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


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/endpoints/a/invocations"), ("POST", "/endpoints/a/other"), ("POST", "/endpoints/a/b/invocations")],
)
def test_another_operation_is_unknown(server: Server, method: str, path: str) -> None:
    response = server.client.request(method, path)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    assert response.headers["x-amzn-requestid"]
    assert path in response.json()["Message"]


def test_a_batch_transform_is_told_how_to_send(server: Server) -> None:
    told = server.client.get("/execution-parameters").json()
    assert told["BatchStrategy"] == "MULTI_RECORD"
    # No body above max_request_size, but SageMaker knows whole megabytes only.
    assert told["MaxPayloadInMB"] == 1
    assert told["MaxConcurrentTransforms"] >= 1


@pytest.mark.parametrize(("request_timeout", "seconds"), [(5.0, 5.0), (59.0, 58.0), (60.0, 58.0), (300.0, 300.0)])
def test_an_answer_comes_before_boto3_gives_up(request_timeout: float, seconds: float) -> None:
    assert patience(request_timeout) == seconds


def test_a_model_that_does_not_load_in_time_is_not_ready_and_goes_on_loading(
    serve: Callable[..., Server], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    client.close()


def test_a_model_that_does_not_answer_in_time_is_a_model_error(
    serve: Callable[..., Server], store: Path, gate: Gate
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
    client.close()


def test_overload_is_told_with_when_to_come_back(
    serve: Callable[..., Server], store: Path, gate: Gate, threads: ThreadPoolExecutor
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
    client.close()


def test_a_stopping_server_is_unavailable_and_says_so_in_its_last_answer(
    serve: Callable[..., Server], store: Path, gate: Gate, threads: ThreadPoolExecutor
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
    client.close()
