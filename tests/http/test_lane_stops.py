"""What is in the lane when the server stops: finished, and told that it was the last."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.http.lanes import HELD, LARGE, LARGE_ANSWER, LINEAR, counted, cut, lane_client, serve_lane, wait_for_queue
from tests.http.raw import RawClient, post
from tests.servers import DEADLINE, Server, wait_until


@pytest.fixture
def server(serve: Callable[..., Server], store: Path, gate: Gate) -> Server:
    server = serve_lane(serve, store, gate)
    for path, body in ((LINEAR, b"[[1.0]]"), (HELD, b"known")):
        gate.let("known")
        assert server.client.post(path, content=body).status_code == 200
    return server


@pytest.fixture
def clients(server: Server) -> Iterator[Callable[[], RawClient]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(lane_client(server))


def test_what_has_begun_is_answered_and_the_connection_closed_as_soon_as_it_is(
    server: Server, gate: Gate, clients: Callable[[], RawClient]
) -> None:
    last, pipelined, half, idle = (clients() for _ in range(4))
    head, body = cut(post(LINEAR), b"[[1.0]]")
    for _ in range(2):
        half.send(head + body)
        assert half.response().status == 200
    pipelined.send(post(HELD, b"first") + post(HELD, b"second") + post(LINEAR))
    gate.wait_for("first")
    wait_for_queue(server, 1)
    last.send(post(HELD, b"last"))
    wait_for_queue(server, 2)
    half.send(head)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.client.get("/ping").status_code == 503, "it to stop")
    # What was not a whole request when it began to stop is refused, whether its head is known or not.
    half.send(body)
    refused = half.response()
    assert_error(refused, 503, "ServiceUnavailableException")
    assert refused.headers["connection"] == "close"
    assert half.rest() == b""
    gate.let("first", "second")
    answers = [pipelined.response() for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
    # Others are still being answered.
    assert pipelined.rest() == b""
    assert server.process.poll() is None
    idle.send(post(LINEAR))
    assert idle.response().status == 503
    gate.let("last")
    answer = last.response()
    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"last", "close")
    assert last.rest() == b""
    assert server.process.wait(DEADLINE) == 0


def test_an_answer_that_its_client_has_not_read_yet_is_still_sent(
    server: Server, gate: Gate, clients: Callable[[], RawClient]
) -> None:
    assert server.client.post(LARGE, content=b"x").status_code == 200
    client = clients()
    count = 6
    client.send(post(LARGE, b"x") * count)
    wait_until(lambda: counted(server, "large", 200) == 1 + count, "all of the answers")
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "finishing what was accepted" in server.log.read_text(), "it to stop")
    assert [len(client.response().body) for _ in range(count)] == [LARGE_ANSWER] * count
    assert client.rest() == b""
    assert server.process.wait(DEADLINE) == 0
