"""What answers that come in pieces count as: it is known when they are over."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.http import gates
from tests.http.gates import Gate
from tests.http.streams import ask, serve_streaming
from tests.observability.scraped import scrape
from tests.servers import Server, wait_until

gate = gates.module_gate


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Server:
    properties = dict.fromkeys(("whole", "raising", "dying", "left"), "")
    return serve_streaming(serve_module, tmp_path_factory.mktemp("store"), gate, properties)


def counted(server: Server, model: str) -> dict[str, float]:
    """The model's answers by their statuses."""
    found = {}
    for (name, labels), value in scrape(server).values.items():
        said = dict(labels)
        if name == "mmserve_requests_total" and said["model"] == model:
            found[said["status"]] = value
    return found


def test_a_whole_one_counts_as_what_it_was_answered_with(server: Server) -> None:
    assert ask(server, "one two", "whole").text == "onetwo"
    wait_until(lambda: counted(server, "whole") == {"200": 1}, "its count")


@pytest.mark.parametrize(("model", "word"), [("raising", "raise-it"), ("dying", "die")])
def test_one_that_its_model_cuts_off_counts_as_the_models_failure(server: Server, model: str, word: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, f"one {word}", model)
    wait_until(lambda: counted(server, model), "its count")
    assert counted(server, model) == {"424": 1}


def test_one_whose_client_goes_counts_as_that(server: Server, gate: Gate) -> None:
    with server.client.stream("POST", "/predictions/left", content="one hold-left two") as response:
        pieces = response.iter_text()
        assert next(pieces) == "one"
        assert counted(server, "left") == {}
    wait_until(lambda: counted(server, "left") == {"499": 1}, "its count")
    gate.let("left")
