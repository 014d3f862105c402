"""What a connection must not lose by its fast lane: order, bounds, and an end that its client can tell."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.http import gates, lanes
from tests.http.gates import Gate
from tests.http.lanes import (
    HELD,
    LARGE,
    LARGE_ANSWER,
    LINEAR,
    PING,
    WORDS,
    counted,
    cut,
    lane_client,
    send_apart,
    serve_lane,
    wait_for_queue,
)
from tests.http.raw import RawClient, chunked, post
from tests.servers import Server, wait_until

READ_TIMEOUT = 1.0
KEEPALIVE_TIMEOUT = 0.5

gate, server = gates.module_gate, lanes.server


@pytest.fixture
def known(server: Server) -> None:
    """The models are known, and the heads of their requests were read before."""
    with lane_client(server) as client:
        for _ in range(2):
            for path, body in ((LINEAR, b"[[1.0]]"), (LARGE, b"x")):
                client.send(post(path, body))
                assert client.response().status == 200


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with lane_client(server) as client:
        yield client


@pytest.mark.usefixtures("known")
def test_pipelined_requests_are_answered_in_order_whoever_answers_them(client: RawClient, gate: Gate) -> None:
    client.send(
        post(LINEAR)
        + post(HELD, b"slow")
        + post(LINEAR, b"[[2.0]]")
        + PING
        + post(LINEAR, b"[[")
        + post(HELD, b"quick")
        + post("/predictions/none")
        + chunked(LINEAR, b"[[3", b".0]]")
        + post(LINEAR, b"[[4.0]]", "x-priority: soon")
        + post(LINEAR, b"[[4.0]]")
    )
    gate.let("quick")
    gate.wait_for("slow")
    gate.let("slow")
    answers = [client.response() for _ in range(10)]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 400, 200, 404, 200, 400, 200]
    assert [answers[place].body for place in (1, 5)] == [b"slow", b"quick"]
    assert [answers[place].json["predictions"] for place in (0, 2, 7, 9)] == [[3.0], [5.0], [7.0], [9.0]]
    assert answers[3].json == {"status": "Healthy"}


@pytest.mark.usefixtures("known")
def test_a_client_that_reads_nothing_is_answered_only_so_far(server: Server, client: RawClient) -> None:
    count = 100
    front = psutil.Process(server.process.pid)
    before, answered = front.memory_info().rss, counted(server, "large", 200)
    client.send(post(LARGE, b"x") * count)
    still = [0.0, 0.0]

    def stands_still() -> bool:
        now = counted(server, "large", 200)
        still[:] = [now, still[1] + 1 if now == still[0] else 0.0]
        return still[1] > 20

    wait_until(stands_still, "the server to wait for its client")
    assert counted(server, "large", 200) - answered < 40
    assert front.memory_info().rss - before < 48 * LARGE_ANSWER
    assert [len(client.response().body) for _ in range(count)] == [LARGE_ANSWER] * count


def test_a_client_that_goes_takes_with_it_all_that_waits(server: Server, gate: Gate) -> None:
    before = counted(server, "held", 499)
    with lane_client(server) as staying:
        staying.send(post(HELD, b"staying"))
        gate.wait_for("staying")
        with lane_client(server) as going:
            going.send(b"".join(post(HELD, b"gone-%d" % number) for number in range(3)))
            wait_for_queue(server, 3)
        wait_for_queue(server, 0)
        assert counted(server, "held", 499) - before == 3
        gate.let("staying")
        assert staying.response().body == b"staying"
        staying.send(post(HELD, b"after-those"))
        gate.let("after-those")
        assert staying.response().body == b"after-those"
    assert not any(gate.holds(f"gone-{number}") for number in range(3))


def test_a_client_that_goes_while_it_is_answered_is_counted_as_gone(server: Server, gate: Gate) -> None:
    before = counted(server, "held", 499)
    with lane_client(server) as client:
        client.send(post(HELD, b"left-alone"))
        gate.wait_for("left-alone")
    wait_until(lambda: counted(server, "held", 499) == before + 1, "its count")
    gate.let("left-alone")


@pytest.mark.usefixtures("known")
def test_a_socket_that_is_half_closed_is_closed(server: Server, gate: Gate) -> None:
    """As aiohttp does: a client that ends its side has gone."""
    head, _ = cut(post(LINEAR), b"[[1.0]]")
    for sent in (b"", head, post(HELD, b"half-closed"), post(LINEAR)[:20]):
        with lane_client(server) as client:
            send_apart(server, client, [sent])
            client.end_sending()
            assert client.rest() == b""
    gate.let("half-closed")


def test_connection_close_in_the_middle_ends_what_comes_after_it(server: Server, client: RawClient, gate: Gate) -> None:
    last = post(LINEAR, b"[[2.0]]", "Connection: close")
    send_apart(server, client, [post(HELD, b"first"), last, post(LINEAR, b"[[3.0]]")])
    gate.let("first")
    first, second = client.response(), client.response()
    assert second.status == 200, second
    assert (first.body, second.json["predictions"]) == (b"first", [5.0])
    assert ("connection" in first.headers, second.headers["connection"]) == (False, "close")
    assert client.rest() == b""


def test_an_answer_in_pieces_has_its_place_before_anyone_knew_of_them(client: RawClient) -> None:
    for _ in range(2):
        client.send(post(LINEAR) + post(WORDS, b"one two three") + post(LINEAR, b"[[2.0]]") + post(WORDS, b"four"))
        assert client.response().json["predictions"] == [3.0]
        assert client.response().headers["transfer-encoding"] == "chunked"
        assert [client.chunk() for _ in range(4)] == [b"one", b"two", b"three", b""]
        assert client.response().json["predictions"] == [5.0]
        client.response()
        assert [client.chunk() for _ in range(2)] == [b"four", b""]


def test_a_worker_that_is_killed_costs_a_pipeline_nothing(server: Server, client: RawClient, gate: Gate) -> None:
    client.send(post(LINEAR) + post(HELD, b"mortal") + post(HELD, b"heir") + post(LINEAR, b"[[2.0]]"))
    gate.wait_for("mortal")
    (pid,) = server.worker_pids("held")
    os.kill(pid, signal.SIGKILL)
    gate.let("mortal", "heir")
    answers = [client.response() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.body for answer in answers[1:3]] == [b"mortal", b"heir"]


def test_the_rest_of_a_request_has_its_time_whatever_an_idle_connection_has(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    times = {"read_timeout": READ_TIMEOUT, "keepalive_timeout": KEEPALIVE_TIMEOUT}
    server = serve_lane(serve, store, Gate(tmp_path / "gate"), **times)
    head, body = cut(post(LINEAR), b"[[1.0]]")
    with lane_client(server) as client:
        for _ in range(2):
            client.send(head + body)
            assert client.response().status == 200
        client.send(head)
        assert client.response().status == 408
        assert client.rest() == b""
