"""Requests whose heads were read before: their bytes are known, and nothing else about them is taken for granted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests import models_for_tests as models
from tests.http import gates, lanes
from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.http.lanes import HELD, LINEAR, PING, cut, lane_client, send_apart, wait_for_queue
from tests.http.raw import RawClient, post
from tests.http.registered import register, unregister
from tests.http.runtime import ClientOf
from tests.servers import Server

# Heads that are kept at most.
_KEPT = 4096
TARGET = "X-Amzn-SageMaker-Target-Model"

gate, server = gates.module_gate, lanes.server


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    """Its connection has asked `linear`, with the heads that other tests ask it with."""
    with lane_client(server) as client:
        for _ in range(2):
            client.send(post(LINEAR))
            assert client.response().status == 200
        yield client


def predictions(client: RawClient) -> list[float]:
    response = client.response()
    assert response.status == 200, response.body
    found: list[float] = response.json["predictions"]
    return found


@pytest.mark.parametrize("headers", [(), ("X-Never: said",)], ids=["known", "unknown"])
def test_a_request_may_be_cut_anywhere(server: Server, client: RawClient, headers: tuple[str, ...]) -> None:
    request = post(LINEAR, b"[[5.0]]", *headers)
    for place in range(1, len(request)):
        send_apart(server, client, [request[:place], request[place:]])
        assert predictions(client) == [11.0]


def test_a_body_may_come_in_pieces_behind_a_known_head(server: Server, client: RawClient) -> None:
    head, body = cut(post(LINEAR, b"[[5.0]]"), b"[[5.0]]")
    send_apart(server, client, [head, *(body[place : place + 1] for place in range(len(body)))])
    assert predictions(client) == [11.0]


def test_what_follows_a_known_head_need_not_end_with_its_body(server: Server, client: RawClient) -> None:
    head, body = cut(post(LINEAR, b"[[5.0]]"), b"[[5.0]]")
    send_apart(server, client, [head, body + head, body + head[:9], head[9:] + body + PING])
    assert [predictions(client) for _ in range(3)] == [[11.0]] * 3
    assert client.response().json == {"status": "Healthy"}


def test_a_known_head_that_is_only_begun_with_is_another(client: RawClient) -> None:
    head, body = cut(post(LINEAR, b"[[5.0]]"), b"[[5.0]]")
    client.send(head[:-2] + b"Connection: close\r\n\r\n" + body)
    response = client.response()
    assert (response.json["predictions"], response.headers["connection"]) == ([11.0], "close")


def test_a_known_head_in_a_body_is_a_body(server: Server, client: RawClient) -> None:
    inner = post(LINEAR)
    send_apart(server, client, cut(post(LINEAR, inner), inner))
    assert_error(client.response(), 400, "BadRequestException")
    send_apart(server, client, [*cut(post(LINEAR, inner, "X-Unknown: 1"), inner)])
    assert_error(client.response(), 400, "BadRequestException")
    client.send(PING)
    assert client.response().json == {"status": "Healthy"}


def test_every_answer_has_the_id_of_its_own_request(client: RawClient) -> None:
    own = set()
    for number in range(20):
        client.send(post(LINEAR, b"[[1.0]]", f"X-Request-Id: id-{number}") + post(LINEAR))
        assert client.response().headers["x-request-id"] == f"id-{number}"
        own.add(client.response().headers["x-request-id"])
        client.send(post(LINEAR, b"[[1.0]]", "X-Request-Id: the-same"))
        assert client.response().headers["x-request-id"] == "the-same"
        client.send(post(LINEAR))
        own.add(client.response().headers["x-request-id"])
    assert len(own) == 40
    assert not any(id_.startswith(("id-", "the-")) for id_ in own)


def test_two_models_on_one_connection_are_never_taken_for_each_other(client: RawClient) -> None:
    for number in range(20):
        for path, answer in ((LINEAR, 2.0 * number + 1.0), ("/predictions/triple", 3.0 * number)):
            client.send(post(path, b"[[%6d]]" % number))
            assert predictions(client) == [answer]
        for target, answer in (("linear", 2.0 * number + 1.0), ("triple", 3.0 * number)):
            client.send(post("/invocations", b"[[%6d]]" % number, f"{TARGET}: {target}"))
            assert predictions(client) == [answer]


def test_a_known_head_asks_the_model_that_has_the_name_now(server: Server, client: RawClient, tmp_path: Path) -> None:
    request = post("/predictions/moved")
    client.send(request)
    assert client.response().status == 404
    for slope in (4.0, 5.0):
        archive = models.write_archive(tmp_path / f"{slope}.tar.gz", models.linear(slope=slope, intercept=0.0))
        assert register(server, url=str(archive), model_name="moved").status_code == 200
        for _ in range(3):
            client.send(request)
            assert predictions(client) == [slope]
        head, body = cut(request, b"[[1.0]]")
        send_apart(server, client, [head])
        unregister(server, "moved")
        client.send(body)
        assert client.response().status == 404
        client.send(request)
        assert_error(client.response(), 404, "ModelNotFoundException", "moved")


def test_known_heads_are_as_urgent_as_they_say(server: Server, client: RawClient, gate: Gate) -> None:
    said = {"late": "x-priority: 9", "usual": "X-Other: 1", "soon": "x-priority: 1"}
    for name, header in said.items():
        client.send(post(HELD, name.encode(), header))
        gate.let(name)
        assert client.response().body == name.encode()
    client.send(post(HELD, b"running"))
    gate.wait_for("running")
    # Bodies as long as those before, so that the heads are the same.
    names = {"lat2": said["late"], "usua2": said["usual"], "soo2": said["soon"]}
    with lane_client(server) as first, lane_client(server) as second, lane_client(server) as third:
        for place, (asking, name) in enumerate(zip((first, second, third), names, strict=True), 1):
            asking.send(post(HELD, name.encode(), names[name]))
            wait_for_queue(server, place)
        gate.let("running")
        for later, name in ((("usua2", "lat2"), "soo2"), (("lat2",), "usua2"), ((), "lat2")):
            gate.wait_for(name)
            assert not any(map(gate.holds, later))
            gate.let(name)
        assert [asking.response().body for asking in (client, first, second, third)] == [
            b"running",
            b"lat2",
            b"usua2",
            b"soo2",
        ]


def test_heads_that_are_kept_are_bounded(server: Server) -> None:
    front = psutil.Process(server.process.pid)
    filler = [f"X-Filler-{number}: {'x' * 40}" for number in range(12)]

    def ask(numbers: range) -> None:
        for start in numbers[:: len(clients)]:
            for number, asking in enumerate(clients, start):
                asking.send(post(LINEAR, b"[[1.0]]", f"X-Number: {number}", *filler))
            for asking in clients:
                assert asking.response().status == 200

    with ExitStack() as stack:
        clients = [stack.enter_context(lane_client(server)) for _ in range(16)]
        # As many as are kept, and then as many again.
        ask(range(_KEPT))
        before = front.memory_info().rss
        ask(range(_KEPT, 2 * _KEPT))
    assert front.memory_info().rss - before < 16 << 20


def test_boto3_is_answered_by_the_lane_with_all_that_it_is_told(server: Server, client_of: ClientOf) -> None:
    client = client_of(server.url)
    ids = set()
    for number in range(5):
        for key, answer in (("linear.tar.gz", 2.0 * number + 1.0), ("triple.tar.gz", 3.0 * number)):
            said = {"InferenceId": f"order-{number}", "TargetVariant": "blue"} if number % 2 else {}
            got = client.invoke_endpoint(
                EndpointName="fleet", TargetModel=key, ContentType="application/json", Body=b"[[%d]]" % number, **said
            )
            assert json.loads(got["Body"].read()) == {"predictions": [answer]}
            headers = got["ResponseMetadata"]["HTTPHeaders"]
            assert got["InvokedProductionVariant"] == said.get("TargetVariant", "AllTraffic")
            assert headers.get("x-amzn-sagemaker-inference-id") == said.get("InferenceId")
            assert headers["x-amzn-requestid"] == headers["x-request-id"]
            ids.add(headers["x-request-id"])
    assert len(ids) == 10
