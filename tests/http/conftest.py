"""What most tests of HTTP use. A module that needs another server or store has its own by the same name, or a helper's
that several modules share: `server = lanes.server`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import models_for_tests as models
from tests.credentials import NOBODY
from tests.http.raw import RawClient
from tests.servers import Server

if TYPE_CHECKING:
    from tests.http.runtime import ClientOf


@pytest.fixture(scope="module")
def server(
    serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Server:
    """A server with an address for each API, and what the module's SETTINGS say. Its store has `linear` (2x + 1)."""
    directory = tmp_path_factory.mktemp("store")
    models.write_archive(directory / "linear.tar.gz", models.linear())
    settings = {"management_address": "http://127.0.0.1:0/", **getattr(request.module, "SETTINGS", {})}
    return serve_module(model_store=directory, preload="sklearn.linear_model", **settings)


@pytest.fixture
def server_store(server: Server) -> Path:
    return Path(server.settings["model_store"])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A model that is not in the store: 4x."""
    return models.write_archive(tmp_path / "outside.tar.gz", models.linear(slope=4.0, intercept=0.0))


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with RawClient(server) as client:
        yield client


@pytest.fixture(scope="module")
def client_of() -> Iterator[ClientOf]:
    """Makes clients of SageMaker's runtime as boto3 does where nobody has configured it."""
    # Half a second that only the modules which use it pay for.
    import boto3

    clients = []

    def make(url: str | None) -> Any:
        clients.append(boto3.client("sagemaker-runtime", endpoint_url=url, **NOBODY))
        return clients[-1]

    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"):
            environment.delenv(name, raising=False)
        environment.setenv("AWS_CONFIG_FILE", "/nonexistent")
        yield make
    for client in clients:
        client.close()
