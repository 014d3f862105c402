"""Models are listed in pages: every model once, and no page for nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import Server

COUNT = 250


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server of 250 models, one of which is loaded, and of what is none."""
    store = tmp_path_factory.mktemp("store")
    for number in range(COUNT - 3):
        (store / f"model-{number}").mkdir()
    models.write_archive(store / "archive.tar.gz", models.linear())
    for name in ("archive.zip", "zipped.zip", "broken.tgz", "readme.txt", ".hidden.zip", "no%name.zip", "model.joblib"):
        (store / name).touch()
    (store / ".git").mkdir()
    server = serve_module(model_store=store, preload="sklearn.linear_model")
    assert server.predictions("archive", [[1.0]]) == [3.0]
    return server


def pages(server: Server, **parameters: Any) -> list[list[dict[str, str]]]:
    found = []
    token: str | None = "0"
    while token is not None:
        page = server.management.get("/models", params={**parameters, "next_page_token": token}).json()
        found.append(page["models"])
        token = page.get("nextPageToken")
    return found


@pytest.mark.parametrize(
    ("parameters", "sizes"),
    [
        ({}, [100, 100, 50]),
        ({"limit": 100}, [100, 100, 50]),
        ({"limit": 50}, [50] * 5),
        ({"limit": 99}, [99, 99, 52]),
        ({"limit": 1000}, [100, 100, 50]),
        ({"limit": 0}, [100, 100, 50]),
    ],
)
def test_every_model_is_on_one_page(server: Server, parameters: dict[str, int], sizes: list[int]) -> None:
    found = pages(server, **parameters)
    assert [len(page) for page in found] == sizes
    names = [model["modelName"] for page in found for model in page]
    assert names == sorted({"archive", "zipped", "broken", *(f"model-{number}" for number in range(COUNT - 3))})


def test_a_page_behind_the_last_is_empty(server: Server) -> None:
    response = server.management.get("/models", params={"next_page_token": COUNT})
    assert (response.status_code, response.json()) == (200, {"models": []})


@pytest.mark.parametrize("parameter", ["limit", "next_page_token"])
@pytest.mark.parametrize("value", ["-1", "ten", "1.5", "", "٣", "9" * 5000])
def test_what_is_no_number_is_refused(server: Server, parameter: str, value: str) -> None:
    response = server.management.get("/models", params={parameter: value})
    assert_error(response, 400, "BadRequestException", parameter)


def test_a_model_is_listed_with_where_it_is_and_how_it_does(server: Server) -> None:
    store = Path(server.settings["model_store"])
    listed = {model["modelName"]: model for page in pages(server) for model in page}
    assert listed["archive"] == {
        "modelName": "archive",
        "modelUrl": str(store / "archive.tar.gz"),
        "status": "READY",
    }
    assert listed["zipped"] == {"modelName": "zipped", "modelUrl": str(store / "zipped.zip"), "status": "SLEEPING"}


def test_what_cannot_be_a_model_is_named_in_the_log_and_harms_nobody(serve: Callable[..., Server], store: Path) -> None:
    models.write_archive(store / "linear.tar.gz", models.linear())
    (store / "loop.tar.gz").symlink_to(store / "loop.tar.gz")
    (store / "a%b.tar.gz").write_bytes(b"")
    (store / "notes.txt").write_bytes(b"")
    (store / "lost+found").mkdir()
    server = serve(model_store=store)
    listed = server.management.get("/models").json()["models"]
    assert {"linear", "lost+found"} & {model["modelName"] for model in listed} == {"linear"}
    assert server.predictions("linear", [[1.0]]) == [3.0]
    log = server.log.read_text()
    assert log.count("'a%b.tar.gz': names have letters") == 1
    assert log.count("'notes.txt': archives end in one of .tar.gz") == 1
    assert "lost+found" not in log
