"""What is asked of a server and then interrupted: by its client, by models that hang, by a signal, by another one."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.http.gates import Gate
from tests.http.raw import RawClient, post
from tests.models_for_tests import write_model
from tests.servers import DEADLINE, LIGHT, Server, wait_until

MIB = 1024 * 1024

_HANGING = """
import time

def handle(inputs):
    while not inputs.is_empty():
        time.sleep(1000)
"""
_LARGE = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(bytes({size}))
"""


def is_busy(server: Server, model: str) -> bool:
    return [worker["status"] for worker in server.describe(model)["workers"]] == ["BUSY"]


def is_stopping(server: Server) -> bool:
    return "stopping" in server.log.read_text()


def test_a_model_whose_deletion_was_interrupted_is_deleted_all_the_same(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    gate.write_model(store / "gated")
    server = serve(model_store=store, preload=LIGHT)
    with ThreadPoolExecutor(1) as threads:
        accepted = threads.submit(server.client.post, "/predictions/gated", content="accepted")
        gate.wait_for("accepted")
        worker = server.management.get("/status").json()["workers"]
        assert worker == 1
        with RawClient(server) as client:
            client.send(b"DELETE /models/gated HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until(lambda: server.management.get("/models/gated").status_code == 404, "the start of the deletion")
            connected = server.descriptors()
        wait_until(lambda: server.descriptors() < connected, "the end of the connection")
        gate.let("accepted")
        assert accepted.result().text == "accepted"
    wait_until(lambda: server.management.get("/status").json()["workers"] == 0, "the end of the worker")
    template = server.template_pid()
    wait_until(lambda: set(server.processes()) == {server.process.pid, template}, "the end of the process")


def test_neither_a_deletion_nor_the_end_waits_for_a_worker_that_hangs_with_nobody_waiting(
    serve: Callable[..., Server], store: Path
) -> None:
    for name in ("deleted", "left"):
        write_model(store / name, files={"model.py": _HANGING})
    server = serve(model_store=store, preload=LIGHT, request_timeout=1, drain_timeout=20)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(server.predict, name, []) for name in ("deleted", "left")]
        wait_until(lambda: is_busy(server, "deleted") and is_busy(server, "left"), "hanging workers")
        # With its request still waiting, which is answered first.
        before = time.monotonic()
        assert server.management.delete("/models/deleted").status_code == 200
        assert time.monotonic() - before < 5
        assert [done.result().status_code for done in asked] == [504, 504]
    assert server.management.get("/status").json()["workersByState"] == {"BUSY": 1}
    before = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - before < 5


def test_a_second_signal_ends_a_server_that_waits_for_a_model_that_hangs(
    serve: Callable[..., Server], store: Path
) -> None:
    write_model(store / "hanging", files={"model.py": _HANGING})
    server = serve(model_store=store, preload=LIGHT, request_timeout=60, drain_timeout=20)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(server.predict, "hanging", [])
        wait_until(lambda: is_busy(server, "hanging"), "a hanging worker")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.client.get("/ping").status_code == 503, "the server to be stopping")
        assert not asked.done()
        before = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE) == 0
        assert time.monotonic() - before < 5
        assert isinstance(asked.exception(), httpx.TransportError)
    assert not server.processes()


def test_an_answer_that_is_read_slowly_is_delivered_whole_though_the_server_is_stopping(
    serve: Callable[..., Server], store: Path
) -> None:
    # More than the buffers of both sockets hold.
    size = 16 * MIB
    write_model(store / "large", files={"model.py": _LARGE.format(size=size)})
    server = serve(model_store=store, preload=LIGHT, drain_timeout=20)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(DEADLINE)
        client.connect(server.address)
        client.sendall(post("/predictions/large"))
        head, _, body = client.recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        received = len(body)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_stopping(server), "the server to be stopping")
        # Slower than a server would be that gives its clients two seconds.
        for _ in range(25):
            received += len(client.recv(1000))
            time.sleep(0.1)
        assert server.process.poll() is None
        while part := client.recv(MIB):
            received += len(part)
        assert received == size
    assert server.process.wait(DEADLINE) == 0
