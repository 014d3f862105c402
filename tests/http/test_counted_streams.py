"""What answers that come in pieces count as: it is known when they are over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.http.gates import Gate
from tests.http.streams import write_streaming
from tests.observability.scraped import TEXT, Scraped
from tests.servers import LIGHT, Server, wait_until


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, http: str) -> Path:
    return tmp_path_factory.mktemp(f"counted-{http}")


@pytest.fixture(scope="module")
def gate(directory: Path) -> Gate:
    return Gate(directory / "gate")


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], directory: Path, gate: Gate) -> Server:
    for name in ("whole", "raising", "dying", "left"):
        write_streaming(directory / "store" / name, directory / "gate")
    return serve_module(model_store=directory / "store", preload=LIGHT)


def counted(server: Server, model: str) -> dict[str, float]:
    """The model's answers by their statuses."""
    response = server.management.get("/metrics", headers={"accept": TEXT})
    found = {}
    for (name, labels), value in Scraped(response.headers["content-type"], response.content).values.items():
        said = dict(labels)
        if name == "mmserve_requests_total" and said["model"] == model:
            found[said["status"]] = value
    return found


def ask(server: Server, model: str, words: str) -> httpx.Response:
    return server.client.post(f"/predictions/{model}", content=words)


def test_a_whole_one_counts_as_what_it_was_answered_with(server: Server) -> None:
    assert ask(server, "whole", "one two").text == "onetwo"
    wait_until(lambda: counted(server, "whole") == {"200": 1}, "its count")


@pytest.mark.parametrize(("model", "word"), [("raising", "raise-it"), ("dying", "die")])
def test_one_that_its_model_cuts_off_counts_as_the_models_failure(server: Server, model: str, word: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, model, f"one {word}")
    wait_until(lambda: counted(server, model), "its count")
    assert counted(server, model) == {"424": 1}


def test_one_whose_client_goes_counts_as_that(server: Server, gate: Gate) -> None:
    with server.client.stream("POST", "/predictions/left", content="one hold-left two") as response:
        pieces = response.iter_text()
        assert next(pieces) == "one"
        assert counted(server, "left") == {}
    wait_until(lambda: counted(server, "left") == {"499": 1}, "its count")
    gate.let("left")
