"""What happens to a connection with a fast lane while something else does."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from mmserve.http.connection import ConnectionServer
from mmserve.http.heads import UNKNOWN, Head, Heads
from mmserve.http.lane import Exchange, Lane
from mmserve.http.lane_connection import LaneConnection
from mmserve.http.native import Native
from mmserve.http.targets import Target, Targets
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import USUAL_PRIORITY, Answer
from tests.http.raw import post
from tests.servers import DEADLINE

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
# More than the kernel takes for a client that reads nothing.
LARGE = bytes(16 << 20)


class Says(Native):
    """A dialect in which every answer is the same."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__(DEADLINE)
        self._response = response

    def plain(self, *_: object) -> None:
        return None

    def response(self, *_: object) -> web.StreamResponse:
        return self._response


class StubLane:
    """Waits for the rest of every body, and takes what is whole if it is told what to answer."""

    is_open = True
    heads = Heads(Targets(Native(DEADLINE), Native(DEADLINE)))
    answer: web.StreamResponse | None = None

    def awaits(self, _: RawRequestMessage, payload: StreamReader) -> bool:
        return not payload.is_eof()

    def take(self, client: LaneConnection, message: RawRequestMessage, _: object) -> Exchange | None:
        if self.answer is None:
            return None
        target = Target("linear", "", (), Says(self.answer))
        head = Head(message, target, "linear", "", "", USUAL_PRIORITY, "", UNKNOWN)
        exchange = Exchange(client, head, cast(ModelQueue, None), 0.0)
        exchange.outcome = Answer(200, "", {}, b"")
        return exchange

    def abandon(self, _: Exchange) -> None:
        """Nobody waits for it."""


class Front:
    def __init__(self, lane: StubLane, connections: ConnectionServer, address: tuple[str, int]) -> None:
        self.lane = lane
        self._connections = connections
        self._address = address
        self.clients: list[socket.socket] = []

    async def connect(self) -> tuple[socket.socket, LaneConnection]:
        """A client's end of a connection that waits for a request, and the server's."""
        known = set(self._connections.connections)
        client = socket.create_connection(self._address, timeout=DEADLINE)
        self.clients.append(client)
        await until(lambda: len(self._connections.connections) > len(known))
        (connection,) = set(self._connections.connections) - known
        assert isinstance(connection, LaneConnection)
        await until(lambda: connection._waiter is not None)
        return client, connection


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0)


@asynccontextmanager
async def front(handler: Handler) -> AsyncIterator[Front]:
    lane = StubLane()
    make = partial(LaneConnection, lane=cast(Lane, lane))
    connections = ConnectionServer(handler, make, read_timeout=DEADLINE, keepalive_timeout=DEADLINE)
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    it = Front(lane, connections, server.sockets[0].getsockname())
    try:
        yield it
    finally:
        for client in it.clients:
            client.close()
        server.close()
        connections.stop_sweeping()
        await connections.shutdown(0.1)


async def nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


def test_a_client_that_is_reset_while_it_is_waited_for_keeps_nobody_else_from_being_waited_for() -> None:
    async def run() -> None:
        async with front(nothing) as it:
            client, connection = await it.connect()
            assert connection.transport is not None
            connection.transport.write(LARGE)
            stopping = asyncio.create_task(connection.shutdown(DEADLINE))
            await until(lambda: connection._drain_waiter is not None)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            # All connections are waited for together: what one raises would end it for all.
            await stopping

    asyncio.run(run())


def test_the_time_of_a_request_does_not_pass_while_the_one_before_it_is_answered() -> None:
    async def run() -> None:
        asked, answering = asyncio.Event(), asyncio.Event()

        async def slow(_: web.BaseRequest) -> web.StreamResponse:
            asked.set()
            await answering.wait()
            return web.Response()

        async with front(slow) as it:
            client, connection = await it.connect()
            client.send(GET + post("/predictions/linear")[:-1])
            await asked.wait()
            connection.end_reading()
            # As its client reads on.
            connection.pause_writing()
            connection.resume_writing()
            assert connection.reading_since == 0
            answering.set()

    asyncio.run(run())


class Broken(web.StreamResponse):
    async def prepare(self, request: web.BaseRequest) -> None:
        raise ValueError("cannot be sent")


@pytest.mark.parametrize("response", [web.Response(headers={"X": "\ud800"}), Broken()], ids=["whole", "in pieces"])
def test_an_answer_that_cannot_be_written_ends_its_connection_and_nothing_else(
    response: web.StreamResponse, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with front(nothing) as it:
            client, connection = await it.connect()
            it.lane.answer = response
            client.send(post("/predictions/linear"))
            await until(lambda: connection._manager is None)
            assert client.recv(1) == b""

    asyncio.run(run())
    assert "its answer could not be written" in caplog.text
