"""Models whose names are paths: archives in directories of the store, addressed as SageMaker's clients do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmserve.models.store import DirectoryStore
from tests import models_for_tests as models
from tests.servers import LIGHT, Server
from tests.supervision.coded import code, reasons

NAME = "eu/de/shop-1"
ESCAPED = "eu%2Fde%2Fshop-1"
FILES = {"model.py": code("return Output().add('ja')")}
_LONG = "/".join(["a" * 200] * 4)


def fill(store: Path) -> Path:
    for name in (NAME, _LONG):
        archive = store / f"{name}.tar.gz"
        archive.parent.mkdir(parents=True)
        models.write_archive(archive, files=FILES)
    models.write_model(store / "plain", files=FILES)
    models.write_archive(store / "plain" / "data.tar.gz", files=FILES)
    return store


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=fill(tmp_path_factory.mktemp("store")), preload=LIGHT)


def test_a_directory_store_finds_archives_in_directories_that_are_no_models(tmp_path: Path) -> None:
    found = DirectoryStore(str(fill(tmp_path)))
    assert list(found.models()) == sorted([NAME, _LONG, "plain"])
    assert found.find("eu") is None
    assert found.find("plain/data") is None
    assert found.find("eu/../plain") is None
    source = found.find(NAME)
    assert source is not None
    assert source.url == str(tmp_path / f"{NAME}.tar.gz")


@pytest.mark.parametrize("path", [f"/predictions/{ESCAPED}", f"/models/{ESCAPED}/invoke"])
def test_a_slash_in_a_name_is_escaped_in_a_path(server: Server, path: str) -> None:
    assert server.client.post(path, content="x").text == "ja"


@pytest.mark.parametrize("target", [NAME, f"{NAME}.tar.gz", f"/{NAME}.tar.gz"])
def test_a_target_model_is_a_key_with_its_prefix(server: Server, target: str) -> None:
    headers = {"X-Amzn-SageMaker-Target-Model": target}
    assert server.client.post("/invocations", content="x", headers=headers).text == "ja"


def test_a_nested_model_is_described_and_listed_by_its_whole_name(server: Server) -> None:
    assert server.describe(ESCAPED)["modelName"] == NAME
    listed = server.management.get("/models").json()["models"]
    assert NAME in [model["modelName"] for model in listed]
    assert server.client.post(f"/predictions/{ESCAPED}", content="x").text == "ja"
    assert reasons(server, NAME, "worker_started") == ["request"]
    assert f'mmserve_requests_total{{model="{NAME}",status="200"}}' in server.management.get("/metrics").text
