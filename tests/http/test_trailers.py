"""What a client says behind a chunked body is said of that request alone, and not of the connection's next one."""

from __future__ import annotations

import pytest

from tests.http.lanes import PING, cut, send_apart
from tests.http.raw import RawClient, chunked, post
from tests.servers import Server

PATH = "/predictions/linear"
_WHOLE = chunked(PATH, b"[[", b"1.0]]")
_TRAILERS = b"Expires: never\r\nX-Request-Id: of-the-one-before\r\n"
_TRAILED = _WHOLE[:-2] + _TRAILERS + b"\r\n"
# Places in it to cut it: in its head, its body and everywhere in its end.
_CUTS = [10, _WHOLE.index(b"1.0"), *range(len(_WHOLE) - 6, len(_TRAILED))]


def assert_answered(client: RawClient) -> None:
    response = client.response()
    assert (response.status, response.json) == (200, {"predictions": [3.0]})
    assert response.headers["x-request-id"] != "of-the-one-before"


def test_trailers_are_no_headers_of_the_next_request(shared_server: Server) -> None:
    with RawClient(shared_server) as client:
        for following in (post(PATH), _TRAILED, post(PATH), _WHOLE, post(PATH)):
            client.send(_TRAILED)
            assert_answered(client)
            client.send(following)
            assert_answered(client)


@pytest.mark.parametrize("cut", _CUTS)
def test_wherever_they_are_cut(shared_server: Server, cut: int) -> None:
    with RawClient(shared_server) as client:
        send_apart(shared_server, client, [_TRAILED[:cut], _TRAILED[cut:]])
        assert_answered(client)
        client.send(post(PATH))
        assert_answered(client)


def test_what_is_pipelined_behind_a_chunked_body_is_answered(shared_server: Server) -> None:
    with RawClient(shared_server) as client:
        following = post(PATH)
        for cut in (0, 7, following.index(b"\r\n\r\n") + 2, len(following) - 3):
            send_apart(shared_server, client, [_WHOLE + following[:cut], following[cut:]])
            assert_answered(client)
            assert_answered(client)
        client.send((_WHOLE + following) * 40)
        for _ in range(80):
            assert_answered(client)


def test_what_the_parser_holds_back_is_not_taken_for_read(shared_server: Server) -> None:
    late, body = cut(post(PATH, b"[[1.0]]", "Expect: 100-continue"), b"[[1.0]]")
    # That the head of a request is what it holds back takes as many requests before as it reads ahead.
    inner = post("/inner")
    head, _ = cut(post(PATH, inner), inner)
    with RawClient(shared_server) as client:
        client.send(late)
        assert client.response().status == 100
        send_apart(shared_server, client, [body + PING * 30 + _WHOLE + head, inner])
        assert [client.response().status for _ in range(32)] == [200] * 32
        assert client.response().status == 400, "of a body that is no JSON"
        client.send(PING)
        assert client.response().status == 200
