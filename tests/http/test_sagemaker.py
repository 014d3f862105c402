"""boto3's `sagemaker-runtime`, unmodified: what it asks, and what it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.http import runtime
from tests.http.runtime import LARGEST, ClientOf, ask, refusal
from tests.servers import Server

server, client = runtime.server, runtime.client


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


def test_the_endpoint_may_come_from_the_environment(
    server: Server, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    client = client_of(None)
    assert ask(client, "2.0", "linear.tar.gz", ContentType="text/csv")["Body"].read()


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


def test_a_key_that_can_be_no_models_is_told_why(client: Any) -> None:
    message = refusal(client, model="ünïcode.tar.gz").response["Error"]["Message"]
    assert "'ünïcode.tar.gz' in the model store: names have letters a to z" in message


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
    error = refusal(client, "x" * (LARGEST + 1))
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
