"""A running server says what it did and why, to who asks and to who waits for it."""

from __future__ import annotations

import datetime
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.servers import DEADLINE, LIGHT, Server, wait_until

_ECHO = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(inputs.get_as_bytes())
"""


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server whose models each test wakes itself, so that they are asleep before."""
    store = tmp_path_factory.mktemp("store")
    for name in "abcd":
        models.write_model(store / name, files={"model.py": _ECHO})
    return serve_module(model_store=store, preload=LIGHT)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def wake(server: Server, model: str) -> None:
    assert server.client.post(f"/predictions/{model}", content=b"x").status_code == 200


def ask(server: Server, **parameters: Any) -> Any:
    response = httpx.get(f"{server.management_url}/events", params=parameters, timeout=DEADLINE, trust_env=False)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_start_of_a_worker_is_an_event_with_its_reason(server: Server) -> None:
    wake(server, "a")
    answer = ask(server, model="a")
    started = answer["events"][0]
    assert list(started)[:5] == ["id", "time", "kind", "model", "reason"]
    assert (started["model"], bool(started["kind"]), bool(started["reason"])) == ("a", True, True)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(started["time"])
    assert 0 <= age.total_seconds() < DEADLINE
    assert started["time"].endswith("Z")
    assert answer["first"] <= started["id"] <= answer["last"]


def test_events_are_read_from_where_the_reader_was(server: Server) -> None:
    wake(server, "a")
    wake(server, "b")
    answer = ask(server, limit=1000)
    numbers = [event["id"] for event in answer["events"]]
    assert numbers == list(range(answer["first"], answer["last"] + 1))
    assert len(numbers) >= 2
    # There may have been another one since.
    assert [event["id"] >= numbers[-1] for event in ask(server, limit=1)["events"]] == [True]
    assert [event["id"] for event in ask(server, after=numbers[0], limit=1)["events"]] == numbers[1:2]
    assert all(event["id"] > numbers[-1] for event in ask(server, after=numbers[-1])["events"])
    assert {event["model"] for event in ask(server, model="b")["events"]} == {"b"}
    assert ask(server, model="nobody")["events"] == []


def test_who_waits_is_answered_when_it_happens(server: Server, beside: ThreadPoolExecutor) -> None:
    last = ask(server)["last"]
    waiting = beside.submit(ask, server, after=last, model="d", timeout=DEADLINE)
    wake(server, "c")
    wake(server, "d")
    assert {event["model"] for event in waiting.result(DEADLINE)["events"]} == {"d"}
    started = time.monotonic()
    assert ask(server, after=last, model="nobody", timeout=0.3)["events"] == []
    assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"after": "-1"}, "after"),
        ({"after": "x"}, "after"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"timeout": "60.1"}, "timeout"),
        ({"timeout": "-1"}, "timeout"),
        ({"timeout": "nan"}, "timeout"),
        ({"timeout": "1e1"}, "timeout"),
    ],
)
def test_a_wrong_parameter_is_named(server: Server, parameters: dict[str, str], name: str) -> None:
    assert_error(server.management.get("/events", params=parameters), 400, "BadRequestException", name)


def test_events_can_only_be_read(server: Server) -> None:
    assert_error(server.management.delete("/events"), 405, "MethodNotAllowedException")


def connections(server: Server) -> int:
    """Clients that the front has accepted."""
    found = psutil.Process(server.process.pid).net_connections(kind="tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in found)


def test_who_waits_for_events_does_not_hold_up_the_end(
    serve: Callable[..., Server], beside: ThreadPoolExecutor
) -> None:
    server = serve(preload=LIGHT)
    before = connections(server)
    waiting = [beside.submit(ask, server, after=0, model="nobody", timeout=60) for _ in range(3)]
    wait_until(lambda: connections(server) == before + 3, "those who wait to be connected")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 10
    assert [one.result(DEADLINE)["events"] for one in waiting] == [[], [], []]


def test_while_a_server_drains_its_events_can_be_read_but_not_waited_for(
    serve: Callable[..., Server], store: Path, tmp_path: Path, beside: ThreadPoolExecutor
) -> None:
    gate = Gate(tmp_path / "gate")
    gate.write_model(store / "gated")
    server = serve(model_store=store, preload=LIGHT)
    held = beside.submit(server.client.post, "/predictions/gated", content=b"one")
    gate.wait_for("one")
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.management.get("/ping").status_code == 503, "the drain")
    started = time.monotonic()
    assert {event["model"] for event in ask(server, model="gated", timeout=60)["events"]} == {"gated"}
    assert ask(server, after=0, model="nobody", timeout=60)["events"] == []
    assert time.monotonic() - started < 10
    gate.let("one")
    assert held.result(DEADLINE).text == "one"
    assert server.process.wait(DEADLINE) == 0
