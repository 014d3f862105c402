"""HTTP as clients speak it, well or badly, on sockets of their own."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.http.errors import assert_error
from tests.http.lanes import cut, send_apart
from tests.http.raw import RawClient, chunked, post, rows_of
from tests.servers import Server, wait_until

READ_TIMEOUT = 0.8
KEEPALIVE_TIMEOUT = 1.5
MAX_BODY = 200_000
# Between a timeout and its effect on a busy host.
SLACK = 5.0
ANSWER = {"predictions": [3.0]}
PATH = "/predictions/linear"
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
# A body in more chunks than aiohttp takes in before some of it is read.
_TINY = [b"[[1.0]]", *[b" "] * 20_000]
# Of the server, which allows little.
SETTINGS = {
    "read_timeout": READ_TIMEOUT,
    "keepalive_timeout": KEEPALIVE_TIMEOUT,
    "max_request_size": MAX_BODY,
    "max_buffered_bytes": MAX_BODY + 100_000,
    "max_header_size": 4000,
}


def test_a_connection_is_kept_alive(client: RawClient) -> None:
    for _ in range(3):
        client.send(post(PATH))
        response = client.response()
        assert (response.status, response.json) == (200, ANSWER)
        assert response.headers.get("connection") != "close"


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    count = 200
    client.send(b"".join(post(PATH, b"[[%d]]" % number) for number in range(count)))
    answers = [client.response().json["predictions"][0] for _ in range(count)]
    assert answers == [2.0 * number + 1.0 for number in range(count)]


def test_what_is_pipelined_behind_a_late_body_is_answered(client: RawClient) -> None:
    head, body = cut(post(PATH, b"[[1.0]]", "Expect: 100-continue"), b"[[1.0]]")
    client.send(head)
    assert client.response().status == 100
    client.send(body + PING * 70)
    assert [client.response().status for _ in range(71)] == [200] * 71


def test_a_bad_request_among_pipelined_ones_is_answered_in_its_place(client: RawClient) -> None:
    client.send(post(PATH) + post(PATH, b"[[") + post("/predictions/none") + post(PATH))
    assert [client.response().status for _ in range(4)] == [200, 400, 404, 200]


def test_connection_close_is_obeyed(client: RawClient) -> None:
    client.send(post(PATH, b"[[1.0]]", "Connection: close"))
    response = client.response()
    assert (response.status, response.json) == (200, ANSWER)
    assert response.headers["connection"] == "close"
    assert client.rest() == b""


def test_http_1_0_is_answered_and_closed(client: RawClient) -> None:
    client.send(post(PATH, version="1.0"))
    assert client.response().json == ANSWER
    assert client.rest() == b""


def test_a_client_of_http_1_0_may_keep_its_connection(client: RawClient) -> None:
    for _ in range(2):
        client.send(post(PATH, b"[[1.0]]", "Connection: keep-alive", version="1.0"))
        response = client.response()
        assert response.json == ANSWER
        assert response.headers["connection"] == "keep-alive"


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_nothing_is_read_behind_a_request_for_an_upgrade(server: Server, client: RawClient, protocol: str) -> None:
    asking = post(PATH, b"[[1.0]]", f"Upgrade: {protocol}", "Connection: upgrade")
    inner = post(PATH, b"[[2.0]]")
    outer = post(PATH, inner)
    # The body of one request with the head of the next; then the body of that, which looks like a request.
    send_apart(server, client, [asking[:-7], asking[-7:] + outer[: -len(inner)], inner])
    response = client.response()
    assert (response.json, response.headers["connection"]) == (ANSWER, "close")
    assert client.rest() == b""


@pytest.mark.parametrize("chunks", [[b"[[1.0]]"], [b"[", b"[1.", b"0]]"], [b"[[1.0]]", b" " * 100_000], _TINY])
def test_a_body_may_come_in_chunks(client: RawClient, chunks: list[bytes]) -> None:
    client.send(chunked(PATH, *chunks) + post(PATH))
    assert [client.response().json for _ in range(2)] == [ANSWER, ANSWER]


def test_a_request_may_come_byte_by_byte(client: RawClient) -> None:
    for byte in post(PATH):
        client.send(bytes([byte]))
    assert client.response().json == ANSWER


def test_who_asks_first_is_told_to_continue(client: RawClient) -> None:
    request = post(PATH, rows_of(70_000), "Expect: 100-continue")
    head, body = request[:-70_000], request[-70_000:]
    for _ in range(2):
        client.send(head)
        assert client.response().status == 100
        client.send(body)
        response = client.response()
        assert (response.status, response.json) == (200, ANSWER)


def test_another_expectation_is_refused(client: RawClient) -> None:
    client.send(post(PATH, b"[[1.0]]", "Expect: miracles"))
    assert_error(client.response(), 400, "BadRequestException", "miracles")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 5000 + b"\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(500)) + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
def test_too_large_headers_are_refused(client: RawClient, request_: bytes) -> None:
    client.send(request_)
    assert_error(client.response(), 431, "RequestHeaderFieldsTooLargeException")
    assert client.rest() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /ping HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n",
        b"POST /predictions/linear HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predictions/linear HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\n[[1.0]]",
        b"POST /predictions/linear HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_closed(client: RawClient, garbage: bytes) -> None:
    client.send(garbage)
    assert_error(client.response(), 400, "BadRequestException", "HTTP")
    assert client.rest() == b""


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_body_in_damaged_chunks_is_refused_once(server: Server, client: RawClient, pieces: int) -> None:
    damaged = chunked(PATH, b"[[1.0]]").replace(b"0\r\n\r\n", b"zz\r\n")
    send_apart(server, client, [damaged] if pieces == 1 else cut(damaged, b"zz\r\n"))
    assert_error(client.response(), 400, "BadRequestException", "Invalid character in chunk size")
    assert client.rest() == b""


HALVES = {
    "nothing": b"",
    "half of the headers": b"POST /predictions/linear HTTP/1.1\r\nHos",
    "half of a body": post(PATH)[:-1],
    "half of a large body": post(PATH, rows_of(100_000))[:-1],
    "half of the chunks": chunked(PATH, b"[[1.0]]")[:-5],
    "half of a second body": post(PATH) + post(PATH)[:-1],
    "half of a body after a ping": PING + post(PATH)[:-1],
}


def test_half_a_request_is_closed_in_time(server: Server) -> None:
    with ExitStack() as stack:
        clients = {what: stack.enter_context(RawClient(server)) for what in HALVES}
        for what, half in HALVES.items():
            clients[what].send(half)
        for what, client in clients.items():
            assert client.seconds_until_closed() < READ_TIMEOUT * 1.25 + SLACK, what


def test_a_client_that_sends_a_byte_now_and_then_is_closed_in_time(client: RawClient) -> None:
    client.send(b"POST /predictions/linear HTTP/1.1\r\nHost: x\r\n")
    client.trickle(b"X-Slow: " + b"x" * 1000, every=0.1, deadline=READ_TIMEOUT * 1.25 + SLACK)


def test_an_idle_connection_is_closed(client: RawClient) -> None:
    client.send(post(PATH))
    assert client.response().status == 200
    assert READ_TIMEOUT < client.seconds_until_closed() < KEEPALIVE_TIMEOUT + SLACK


WHOLES = {
    "a ping": PING,
    "an unknown route": b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is not allowed": b"GET /predictions/linear HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad body": post(PATH, b"[["),
    "a body too large": post(PATH, rows_of(MAX_BODY + 1)),
}


def test_an_idle_connection_is_not_taken_for_a_slow_one(server: Server) -> None:
    """Whatever its last request was: a 408 would look like the answer to the next one."""
    with ExitStack() as stack:
        clients = {what: stack.enter_context(RawClient(server)) for what in WHOLES}
        for what, whole in WHOLES.items():
            clients[what].send(whole)
            clients[what].response()
        for what, client in clients.items():
            assert client.rest() == b"", what


def test_a_connection_that_only_pings_lives_longer_than_a_request_may_take(client: RawClient) -> None:
    client.repeat(PING, seconds=READ_TIMEOUT * 2)


def test_connections_that_come_and_go_leave_no_descriptor(server: Server) -> None:
    server.predictions("linear", [[1.0]])
    before = server.descriptors()
    for request in (post(PATH), post(PATH)[:-1], b"garbage\r\n\r\n", b""):
        for _ in range(20):
            with RawClient(server) as client:
                client.send(request)
    wait_until(lambda: server.descriptors() <= before, "the front to close its side of the connections")
