"""What tests of SageMaker's runtime ask with boto3, and a server of some models for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import models_for_tests as models
from tests.servers import Server
from tests.supervision.coded import code

# Makes a client of the endpoint with this URL, or of the one that the environment names.
ClientOf = Callable[[str | None], Any]

LARGEST = 100_000

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


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """`linear` (2x + 1), `eu/north/linear` (5x + 1), `coded`, which does what it is asked, and `broken`."""
    store = tmp_path_factory.mktemp("store")
    models.write_archive(store / "linear.tar.gz", models.linear())
    (store / "eu" / "north").mkdir(parents=True)
    models.write_archive(store / "eu" / "north" / "linear.tar.gz", models.linear(slope=5.0))
    models.write_archive(store / "coded.tar.gz", files={"model.py": code(_HANDLER)})
    models.write_archive(store / "broken.tar.gz", files={"model.py": "raise RuntimeError('no such city')"})
    return serve_module(model_store=store, preload="sklearn.linear_model", max_request_size=LARGEST)


@pytest.fixture(scope="module")
def client(server: Server, client_of: ClientOf) -> Any:
    return client_of(server.url)


def ask(client: Any, body: str | bytes, model: str = "coded.tar.gz", **said: Any) -> dict[str, Any]:
    asked = {"EndpointName": "fleet", "TargetModel": model, "ContentType": "text/plain", "Body": body, **said}
    answer: dict[str, Any] = client.invoke_endpoint(**asked)
    return answer


def refusal(client: Any, body: str | bytes = "x", model: str = "coded.tar.gz", **said: Any) -> ClientError:
    with pytest.raises(ClientError) as raised:
        ask(client, body, model, **said)
    assert raised.value.response["ResponseMetadata"]["RequestId"]
    return raised.value
