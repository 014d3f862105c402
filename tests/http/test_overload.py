"""Requests that wait: those that may not, those that wait too long, and those that nobody waits for any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.http.raw import RawClient, post
from tests.servers import Server, wait_until

TIMEOUT = 1.0


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload="numpy")


@pytest.fixture(scope="module")
def hasty_server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One on which no request may take long."""
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload="numpy", request_timeout=TIMEOUT)


@pytest.fixture
def asking() -> Iterator[Callable[[Server, str, str], Future[httpx.Response]]]:
    """Asks a model in the background: for the answer to a name at a gate."""
    with ThreadPoolExecutor(20) as threads:
        yield lambda server, model, name: threads.submit(
            server.client.post, f"/predictions/{model}", content=name, headers={"content-type": "text/plain"}
        )


Asking = Callable[[Server, str, str], Future[httpx.Response]]


def register(server: Server, directory: Path, **parameters: int) -> str:
    """Registers a model and returns its name, when a worker is ready for it if one is asked for."""
    response = server.management.post("/models", params={"url": str(directory), **parameters})
    assert response.status_code == 200, response.text
    return directory.name


def wait_for_queue(server: Server, model: str, length: int) -> None:
    wait_until(lambda: server.describe(model)["requestInQueue"] == length, f"a queue of {length}")


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    server: Server, tmp_path: Path, gate: Gate, asking: Asking
) -> None:
    model = register(server, gate.write_model(tmp_path / "narrow", "job_queue_size=2\n"))
    running = asking(server, model, "running")
    gate.wait_for("running")
    waiting = [asking(server, model, name) for name in ("first", "second")]
    wait_for_queue(server, model, 2)
    refused = server.client.post(f"/predictions/{model}", content="third")
    assert_error(refused, 429, "WlmCapacityException", model, "job_queue_size")
    assert int(refused.headers["retry-after"]) >= 1
    gate.let("running", "first", "second", "fourth")
    assert [request.result().text for request in (running, *waiting)] == ["running", "first", "second"]
    assert asking(server, model, "fourth").result().text == "fourth"


def test_a_client_that_goes_away_takes_its_waiting_request_with_it(
    server: Server, tmp_path: Path, gate: Gate, asking: Asking
) -> None:
    model = register(server, gate.write_model(tmp_path / "deserted"))
    running = asking(server, model, "running")
    gate.wait_for("running")
    with RawClient(server) as client:
        client.send(post(f"/predictions/{model}", b"gone"))
        wait_for_queue(server, model, 1)
        staying = asking(server, model, "staying")
        wait_for_queue(server, model, 2)
    wait_for_queue(server, model, 1)
    gate.let("running", "staying", "gone")
    assert [running.result().text, staying.result().text] == ["running", "staying"]
    assert not gate.holds("gone")


def test_a_client_that_goes_away_while_its_request_runs_does_no_harm(
    server: Server, tmp_path: Path, gate: Gate, asking: Asking
) -> None:
    model = register(server, gate.write_model(tmp_path / "abandoned"))
    with RawClient(server) as client:
        client.send(post(f"/predictions/{model}", b"gone"))
        gate.wait_for("gone")
    gate.let("gone", "next")
    assert asking(server, model, "next").result().text == "next"
    assert len(server.worker_pids(model)) == 1


def test_both_ways_of_refusing_say_the_same(server: Server, tmp_path: Path, gate: Gate, asking: Asking) -> None:
    model = register(server, gate.write_model(tmp_path / "refusing"), job_queue_size=1, max_worker=1)
    held = asking(server, model, "held")
    gate.wait_for("held")
    waiting = asking(server, model, "waiting")
    wait_for_queue(server, model, 1)
    with RawClient(server) as client:
        client.send(post(f"/predictions/{model}", b"more", "X-Request-Id: mine"))
        one = client.response()
        # Not kept alive, and so not plain.
        client.send(post(f"/predictions/{model}", b"more", "X-Request-Id: mine\r\nConnection: close"))
        other = client.response()
    assert one.status == other.status == 429
    assert one.body == other.body
    for name in ("content-type", "content-length", "x-request-id", "retry-after"):
        assert one.headers[name] == other.headers[name]
    gate.let("held", "waiting")
    assert [held.result().text, waiting.result().text] == ["held", "waiting"]


def test_requests_are_answered_in_the_order_they_came(
    server: Server, tmp_path: Path, gate: Gate, asking: Asking
) -> None:
    model = register(server, gate.write_model(tmp_path / "orderly"), max_worker=1)
    names = [f"n{number}" for number in range(8)]
    requests = []
    for position, name in enumerate(names):
        requests.append(asking(server, model, name))
        gate.wait_for(name) if position == 0 else wait_for_queue(server, model, position)
    for position, name in enumerate(names):
        assert not any(gate.holds(later) for later in names[position + 1 :])
        gate.let(name)
        assert requests[position].result().text == name


def test_a_running_and_a_waiting_request_are_answered_when_their_time_is_over(
    hasty_server: Server, tmp_path: Path, gate: Gate, asking: Asking
) -> None:
    model = register(hasty_server, gate.write_model(tmp_path / "endless"))
    start = time.monotonic()
    running = asking(hasty_server, model, "running")
    gate.wait_for("running")
    waiting = asking(hasty_server, model, "waiting")
    wait_for_queue(hasty_server, model, 1)
    for request in (running, waiting):
        assert_error(request.result(), 504, "DeadlineExceededException")
    assert TIMEOUT <= time.monotonic() - start < TIMEOUT + 5
    assert hasty_server.describe(model)["requestInQueue"] == 0
    # The worker comes back to the next one, not to what is over.
    gate.let("running", "next")
    assert wait_until(lambda: asking(hasty_server, model, "next").result().text == "next", "an answer again")
    assert not gate.holds("waiting")


def test_the_time_of_a_request_includes_the_load_of_its_model(hasty_server: Server, tmp_path: Path) -> None:
    code = "import os, time\nwhile not os.path.exists(%r): time.sleep(0.002)\ndef handle(inputs): pass\n"
    opened = tmp_path / "opened"
    directory = models.write_model(tmp_path / "sluggish", files={"model.py": code % str(opened)})
    register(hasty_server, directory, initial_workers=0)
    start = time.monotonic()
    assert_error(hasty_server.predict("sluggish", [[1.0]]), 504, "DeadlineExceededException")
    assert time.monotonic() - start < TIMEOUT + 5
    opened.touch()
    # Its worker is neither given up nor started a second time.
    wait_until(lambda: hasty_server.describe("sluggish")["status"] == "READY", "the model to be loaded")
    assert hasty_server.predict("sluggish", [[1.0]]).status_code == 204
