"""Answers that come in pieces when the server stops, or when nobody takes them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

from tests.http.gates import Gate
from tests.http.raw import RawClient, post
from tests.http.streams import write_streaming
from tests.servers import LIGHT, Server, wait_until


def test_stopping_waits_for_what_is_being_sent(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    write_streaming(store / "words", tmp_path / "gate")
    server = serve(model_store=store, preload=LIGHT)
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"one hold-end two"))
        client.response()
        assert client.chunk() == b"one"
        gate.wait_for("end")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "server_stopping" in server.log.read_text() or _refuses(server), "the server to be stopping")
        gate.let("end")
        assert client.chunks() == [b"two"]
        assert client.rest() == b""
    assert server.process.wait(30) == 0


def test_stopping_does_not_wait_for_ever(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    write_streaming(store / "words", tmp_path / "gate")
    server = serve(model_store=store, preload=LIGHT, drain_timeout=0.5)
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"one hold-for-ever two"))
        client.response()
        assert client.chunk() == b"one"
        gate.wait_for("for-ever")
        server.process.send_signal(signal.SIGTERM)
        assert client.rest() == b"", "cut off: neither a piece nor an end"
    assert server.process.wait(30) == 0
    assert "cut off after its first piece: The server stops" in server.log.read_text()


def test_a_client_that_takes_nothing_any_more_is_cut_off(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    Gate(tmp_path / "gate")
    write_streaming(store / "words", tmp_path / "gate", "maxWorkers=1\n")
    server = serve(model_store=store, preload=LIGHT, request_timeout=1)
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"stuck many-10000"))
        client.response()
        wait_until((tmp_path / "gate" / "closed-stuck").exists, "the generator to be closed")
        wait_until(lambda: "its client has read nothing for 1 seconds" in server.log.read_text(), "a word in the log")
    assert server.client.post("/predictions/words", content="next").text == "next"


def _refuses(server: Server) -> bool:
    try:
        socket.create_connection(server.address, timeout=1).close()
    except OSError:
        return True
    return False
