"""Who is more urgent goes first, and among those who are equally urgent who came first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, write_coded

Asked = dict[str, Future[httpx.Response]]


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    store = tmp_path_factory.mktemp("store")
    write_coded(store / "plain")
    return serve_module(model_store=store, preload=LIGHT)


@pytest.fixture
def store(server: Server) -> Path:
    return Path(server.settings["model_store"])


def waiting(server: Server, model: str, number: int) -> Callable[[], bool]:
    return lambda: server.describe(model)["requestInQueue"] == number


def line_up(server: Server, model: str, gate: Gate, threads: ThreadPoolExecutor, priorities: dict[str, str]) -> Asked:
    """Has requests wait, in this order, behind one that is named `running`. Those with no priority say none."""
    asked = {"running": threads.submit(ask, server, model, "running")}
    gate.wait_for("running")
    for position, (name, priority) in enumerate(priorities.items(), 1):
        headers = {"x-priority": priority} if priority else {}
        asked[name] = threads.submit(ask, server, model, name, **headers)
        wait_until(waiting(server, model, position), f"{position} requests to wait")
    return asked


def assert_answered_in(order: list[str], gate: Gate, asked: Asked) -> None:
    """Lets one go after the other, each of which has to be at work by then, and those after it not yet."""
    for position, name in enumerate(order):
        gate.wait_for(name)
        assert not any(map(gate.holds, order[position + 1 :]))
        gate.let(name)
        assert asked[name].result().text == name


@pytest.mark.parametrize(
    ("priorities", "order"),
    [
        pytest.param(
            {"a": "", "b": "", "urgent-1": "0", "c": "", "urgent-2": "0", "sooner": "2"},
            ["urgent-1", "urgent-2", "sooner", "a", "b", "c"],
            id="urgent",
        ),
        # Nothing said is 3.
        pytest.param(
            {"last": "9", "four": "4", "usual": "", "three": "3", "usual-too": "", "below": "-1"},
            ["below", "usual", "three", "usual-too", "four", "last"],
            id="patient",
        ),
    ],
)
def test_the_more_urgent_overtake_those_that_wait(
    server: Server,
    store: Path,
    gate: Gate,
    threads: ThreadPoolExecutor,
    priorities: dict[str, str],
    order: list[str],
    request: pytest.FixtureRequest,
) -> None:
    model = request.node.callspec.id
    gate.write_model(store / model, "maxWorkers=1\n")
    asked = line_up(server, model, gate, threads, priorities)
    assert_answered_in(["running", *order], gate, asked)


def test_the_urgent_ones_are_the_first_in_a_batch(
    server: Server, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    # A handler that knows no batches is given those of one, one after the other.
    gate.write_model(store / "batched", "maxWorkers=1\nbatch_size=2\n")
    asked = line_up(server, "batched", gate, threads, {"a": "", "b": "", "urgent": "0"})
    assert_answered_in(["running"], gate, asked)
    gate.let("urgent")
    gate.wait_for("a")
    assert not gate.holds("b")
    gate.let("a", "b")
    assert [asked[name].result().text for name in ("urgent", "a", "b")] == ["urgent", "a", "b"]


@pytest.mark.parametrize("priority", ["high", "", "1.5", "0x1", "1" * 10, "--1", "\u0663"])
def test_a_priority_that_is_no_number_is_refused(server: Server, priority: str) -> None:
    response = server.client.post("/predictions/plain", content="x", headers=[(b"x-priority", priority.encode())])
    assert_error(response, 400, "BadRequestException", "x-priority")


def test_urgency_is_among_the_requests_of_one_model(
    server: Server, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    gate.write_model(store / "mine", "maxWorkers=1\n")
    asked = line_up(server, "mine", gate, threads, {"urgent": "0"})
    assert ask(server, "plain", **{"x-priority": "9"}).status_code == 200
    assert_answered_in(["running", "urgent"], gate, asked)
