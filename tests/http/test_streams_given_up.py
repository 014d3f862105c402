"""Answers that come in pieces when the server stops, or when nobody takes them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.http.gates import Gate
from tests.http.raw import RawClient, post
from tests.http.streams import ask, serve_streaming
from tests.servers import Server, wait_until


@contextmanager
def held(server: Server, gate: Gate, name: str) -> Iterator[RawClient]:
    """A client that has the first of two pieces, while the gate holds back the second."""
    with RawClient(server) as client:
        client.send(post("/predictions/words", f"one hold-{name} two".encode()))
        client.response()
        assert client.chunk() == b"one"
        gate.wait_for(name)
        yield client


def test_stopping_waits_for_what_is_being_sent(serve: Callable[..., Server], store: Path, gate: Gate) -> None:
    server = serve_streaming(serve, store, gate, {"words": ""})
    with held(server, gate, "end") as client:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "server_stopping" in server.log.read_text() or _refuses(server), "the server to be stopping")
        gate.let("end")
        assert client.chunks() == [b"two"]
        assert client.rest() == b""
    assert server.process.wait(30) == 0


def test_stopping_does_not_wait_for_ever(serve: Callable[..., Server], store: Path, gate: Gate) -> None:
    server = serve_streaming(serve, store, gate, {"words": ""}, drain_timeout=0.5)
    with held(server, gate, "for-ever") as client:
        server.process.send_signal(signal.SIGTERM)
        assert client.rest() == b"", "cut off: neither a piece nor an end"
    assert server.process.wait(30) == 0
    assert "cut off after its first piece: The server stops" in server.log.read_text()


def test_a_client_that_takes_nothing_any_more_is_cut_off(serve: Callable[..., Server], store: Path, gate: Gate) -> None:
    server = serve_streaming(serve, store, gate, {"words": "maxWorkers=1\n"}, request_timeout=1)
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"stuck many-10000"))
        client.response()
        wait_until((gate.directory / "closed-stuck").exists, "the generator to be closed")
        wait_until(lambda: "its client has read nothing for 1 seconds" in server.log.read_text(), "a word in the log")
    assert ask(server, "next").text == "next"


def _refuses(server: Server) -> bool:
    try:
        socket.create_connection(server.address, timeout=1).close()
    except OSError:
        return True
    return False
