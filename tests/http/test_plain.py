"""An answer that is written in one piece says what aiohttp's own response says."""

from __future__ import annotations

import email.utils
import time

import pytest

from tests.http.raw import RawClient, post
from tests.servers import Server

PATH = "/predictions/linear"
BODY = b"[[1.0]]"


@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/jsonlines", "application/x-npy"])
def test_both_ways_of_answering_say_the_same(shared_server: Server, accept: str) -> None:
    plain = f"Accept: {accept}\r\nX-Request-Id: mine"
    with RawClient(shared_server) as client:
        client.send(post(PATH, BODY, plain))
        one = client.response()
        # Not kept alive, and so not plain.
        client.send(post(PATH, BODY, plain + "\r\nConnection: close"))
        other = client.response()
    assert one.status == other.status == 200
    assert one.body == other.body
    for name in ("content-type", "content-length", "x-request-id"):
        assert one.headers[name] == other.headers[name]
    sent = email.utils.parsedate_to_datetime(one.headers["date"]).timestamp()
    assert abs(sent - time.time()) < 5


def test_a_request_id_that_could_break_a_header_is_not_sent_back(shared_server: Server) -> None:
    with RawClient(shared_server) as client:
        client.send(post(PATH, BODY, "X-Request-Id: a\tb"))
        answer = client.response()
    assert answer.status == 200
    assert answer.headers["x-request-id"] != "a\tb"


@pytest.mark.parametrize("zeros", [17, 18, 5000])
def test_a_length_may_begin_with_zeros(shared_server: Server, zeros: int) -> None:
    said = b"Content-Length: "
    with RawClient(shared_server) as client:
        for _ in range(2):
            client.send(post(PATH, BODY).replace(said, said + b"0" * zeros))
            assert client.response().status == 200
