"""Bodies of requests: large, larger than is allowed, compressed, and all together."""

from __future__ import annotations

import gzip
import zlib

import psutil
import pytest

from tests.http.errors import assert_error
from tests.http.raw import RawClient, Response, chunked, post, rows_of
from tests.servers import Server, wait_until

MAX_BODY = 200_000
ANSWER = {"predictions": [3.0]}
PATH = "/predictions/linear"


# Of the server, which allows little.
SETTINGS = {
    "max_request_size": MAX_BODY,
    "max_buffered_bytes": MAX_BODY + 100_000,
}


def test_who_asks_first_is_told_that_it_is_too_much(client: RawClient) -> None:
    client.send(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n".encode())
    assert_error(client.response(), 413, "RequestEntityTooLargeException", "9000000", str(MAX_BODY))


def test_the_largest_body_is_answered(client: RawClient) -> None:
    client.send(post(PATH, rows_of(MAX_BODY)) + chunked(PATH, rows_of(MAX_BODY)))
    assert [client.response().json for _ in range(2)] == [ANSWER, ANSWER]


def test_a_larger_body_is_refused(client: RawClient) -> None:
    client.send(post(PATH, rows_of(MAX_BODY + 1)))
    assert_error(client.response(), 413, "RequestEntityTooLargeException", str(MAX_BODY + 1), str(MAX_BODY))
    client.send(chunked(PATH, rows_of(MAX_BODY), b" "))
    assert_error(client.response(), 413, "RequestEntityTooLargeException", str(MAX_BODY))
    # What came too much was read and thrown away, so that the connection is where it was.
    client.send(post(PATH))
    assert client.response().json == ANSWER


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_read(client: RawClient, encoding: str) -> None:
    body = gzip.compress(rows_of(MAX_BODY)) if encoding == "gzip" else zlib.compress(rows_of(MAX_BODY))
    client.send(post(PATH, body, f"Content-Encoding: {encoding}"))
    response = client.response()
    assert (response.status, response.json) == (200, ANSWER)


def test_a_compressed_body_that_is_none_is_refused(client: RawClient) -> None:
    client.send(post(PATH, b"no gzip at all", "Content-Encoding: gzip"))
    assert_error(client.response(), 400, "BadRequestException")


def test_a_compressed_bomb_is_refused(server: Server) -> None:
    front = psutil.Process(server.process.pid)
    before = front.memory_info().rss
    # 256 MiB of blanks.
    bomb = gzip.compress(b" " * (1 << 20), 9) * 256
    with RawClient(server) as client:
        client.send(post(PATH, bomb, "Content-Encoding: gzip"))
        assert_error(client.response(), 413, "RequestEntityTooLargeException", str(MAX_BODY))
    assert front.memory_info().rss - before < 64 << 20
    assert server.predictions("linear", [[1.0]]) == [3.0]


def test_large_bodies_together_are_bounded(server: Server) -> None:
    def answered(body: bytes) -> Response:
        with RawClient(server) as client:
            client.send(post(PATH, body))
            return client.response()

    whole = post(PATH, rows_of(MAX_BODY))
    with RawClient(server) as first:
        first.send(whole[:-1000])
        # As soon as the front has read it.
        refused = wait_until(
            lambda: (response := answered(rows_of(MAX_BODY))).status != 200 and response, "a large body refused"
        )
        assert_error(refused, 503, "ServiceUnavailableException", "max_buffered_bytes")
        assert int(refused.headers["retry-after"]) >= 1
        # Small ones pass, and so do large ones when there is room again.
        assert answered(b"[[1.0]]").json == ANSWER
        first.send(whole[-1000:])
        assert first.response().json == ANSWER
        assert answered(rows_of(MAX_BODY)).json == ANSWER


def test_a_large_body_that_is_only_announced_takes_no_room(server: Server) -> None:
    with RawClient(server) as first:
        first.send(post(PATH, rows_of(MAX_BODY), "Expect: 100-continue")[:-MAX_BODY])
        assert first.response().status == 100
        assert server.client.post(PATH, content=rows_of(MAX_BODY)).json() == ANSWER
        first.send(rows_of(MAX_BODY))
        assert first.response().json == ANSWER


def test_a_large_body_that_never_came_takes_no_room(server: Server) -> None:
    announced = post(PATH, rows_of(MAX_BODY))[:-MAX_BODY]
    for _ in range(5):
        with RawClient(server) as client:
            client.send(announced + b" " * 1000)
    # The front has to see first that they have gone.
    wait_until(lambda: server.client.post(PATH, content=rows_of(MAX_BODY)).json() == ANSWER, "room for a large body")
