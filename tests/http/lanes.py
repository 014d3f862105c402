"""A server whose plain requests go by the fast lane, for tests of what that must not lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import models_for_tests as models
from tests.http.gates import Gate
from tests.http.raw import RawClient
from tests.http.streams import write_streaming
from tests.observability.scraped import scrape
from tests.servers import Server, wait_until

LINEAR = "/predictions/linear"
HELD = "/predictions/held"
WORDS = "/predictions/words"
LARGE = "/predictions/large"
PING = b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n"
# Bytes of an answer of `large`.
LARGE_ANSWER = 1 << 20

_LARGE = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(b"x" * %d)
"""


def serve_lane(serve: Callable[..., Server], store: Path, gate: Gate, **settings: Any) -> Server:
    """`linear` (2x + 1), `triple` (3x), `held` by the gate with one worker, `words` that come in pieces, `large`."""
    models.write_archive(store / "linear.tar.gz", models.linear())
    models.write_archive(store / "triple.tar.gz", models.linear(slope=3.0, intercept=0.0))
    gate.write_model(store / "held", "maxWorkers=1\n")
    write_streaming(store / "words", gate)
    models.write_model(store / "large", files={"model.py": _LARGE % LARGE_ANSWER})
    return serve(model_store=store, preload="sklearn.linear_model", http="lane", **settings)


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Server:
    return serve_lane(serve_module, tmp_path_factory.mktemp("store"), gate)


def lane_client(server: Server) -> RawClient:
    """A client whose connection is ready for the lane: what comes while it is made goes to aiohttp's handler."""
    client = RawClient(server)
    with RawClient(server) as other:
        # By the second answer, aiohttp's handler has gone to sleep after the first.
        for asking in (client, other):
            asking.send(PING)
            assert asking.response().status == 200
    return client


def send_apart(server: Server, client: RawClient, pieces: Iterable[bytes]) -> None:
    """Each of them is read by the server before the next one is sent."""
    with RawClient(server) as other:
        for piece in pieces:
            client.send(piece)
            # One event loop reads both connections, in the order in which something came.
            other.send(PING)
            assert other.response().status == 200


def cut(request: bytes, body: bytes) -> list[bytes]:
    """The head and the body of a request."""
    return [request[: -len(body)], body]


def wait_for_queue(server: Server, length: int) -> None:
    """Until so many requests wait for `held`."""
    wait_until(lambda: server.describe("held")["requestInQueue"] == length, f"a queue of {length}")


def counted(server: Server, model: str, status: int) -> float:
    """Answers of this status that the metrics tell of."""
    return scrape(server).value("mmserve_requests_total", model=model, status=status) or 0
