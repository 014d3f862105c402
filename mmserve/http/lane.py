"""The fast lane: plain inference requests from the parser to the queue, and their answers to the socket.

    bytes ──► aiohttp's parser ──► plain? ── yes ──► Lane.take ──► the model's queue ──► Exchange ──► bytes
                                     └───── no ───► aiohttp's handler, inference.py

A request is plain if it is for a model that is known, its body is small, and it asks nothing of the connection. What is
not plain goes to aiohttp's handler on the same connection, in its turn: both get what one parser has understood, now or
when the same head came before (heads.py), so that there is nothing that one of them would read differently. No task,
request or response object is made for a plain one.
"""

from __future__ import annotations

import time
from typing import Protocol

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from mmserve.errors import ServingError
from mmserve.http.answers import new_request_id
from mmserve.http.dialect import Outcome
from mmserve.http.heads import Head, Heads
from mmserve.models.registry import Registry
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import Answer, Request
from mmserve.scheduling.streams import CLIENT_GONE

# Bytes of a body for which it is waited here; one read of a socket brings more.
_SMALL = 64 * 1024


class Client(Protocol):
    """A connection, which is told when one of its answers is there."""

    def answered(self) -> None: ...


class Exchange:
    """One request of the lane and what came of it. Takes the place of the future that the dispatcher answers."""

    __slots__ = ("_arrived", "_client", "gone", "head", "outcome", "queue", "request_id")

    def __init__(self, client: Client, head: Head, queue: ModelQueue, arrived: float) -> None:
        self.head = head
        self.queue = queue
        self.request_id = head.request_id or new_request_id()
        self.outcome: Outcome | None = None
        # Its client has.
        self.gone = False
        self._client = client
        self._arrived = arrived

    def done(self) -> bool:
        return self.outcome is not None or self.gone

    def set_result(self, answer: Answer) -> None:
        self.outcome = answer
        if answer.stream is None:
            self._count(answer.status)
        else:
            # It counts when it is over, by how it ends.
            answer.stream.begin(answer.status, self._count)
        self._client.answered()

    def set_exception(self, error: Exception) -> None:
        status = ServingError.status
        if isinstance(error, ServingError):
            # Its frames hold the request, which holds this: that would be left to the next collection of garbage.
            error = error.with_traceback(None)
            status = error.status
        self.outcome = error
        self._count(status)
        self._client.answered()

    def plain(self) -> bytes | None:
        """All of the answer, if it is a usual one."""
        assert self.outcome is not None
        return self.head.target.dialect.plain(self.head.message.headers, self.outcome, self.request_id)

    def response(self) -> web.StreamResponse:
        assert self.outcome is not None
        return self.head.target.dialect.response(self.head.message.headers, self.outcome, self.request_id)

    def abandon(self) -> None:
        """The client has gone."""
        if isinstance(self.outcome, Answer) and self.outcome.stream is not None:
            self.outcome.stream.abandon()
        elif self.outcome is None and not self.gone:
            self.gone = True
            self._count(CLIENT_GONE)

    def _count(self, status: int) -> None:
        self.queue.pool.stats.answered(status, time.monotonic() - self._arrived)


class Lane:
    """Begins with the requests that are plain: submits them. `max_size` of a body in bytes."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, heads: Heads, *, max_size: int) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._max_size = min(max_size, _SMALL)
        self.heads = heads
        # Shut as soon as the server stops: aiohttp's handler says so to those who still ask.
        self.is_open = True

    def awaits(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Whether a request may be plain, and only the rest of its body has to come."""
        if payload.is_eof() or payload.exception() is not None or payload.total_bytes > self._max_size:
            return False
        head = self.heads.read(message)
        return head is not None and head.length <= self._max_size and self._queue(head) is not None

    def take(self, client: Client, message: RawRequestMessage, payload: StreamReader) -> Exchange | None:
        """The exchange that has begun with a request whose body is there, or None for one that is not plain."""
        if payload.total_bytes > self._max_size:
            return None
        head = self.heads.read(message)
        queue = self._queue(head) if head is not None else None
        return (
            self._begin(client, head, queue, payload.read_nowait()) if head is not None and queue is not None else None
        )

    def begin(self, client: Client, head: Head, body: bytes) -> Exchange | None:
        """The same for a request whose head was read before."""
        queue = self._queue(head)
        return self._begin(client, head, queue, body) if queue is not None else None

    def abandon(self, exchange: Exchange) -> None:
        """The client has gone: its request goes too, unless a worker already has it."""
        exchange.abandon()
        # Looked for and not kept by the exchange: each would hold the other until the next collection of garbage.
        for request in exchange.queue.waiting:
            if request.future is exchange:
                self._dispatcher.withdraw(exchange.queue, request)
                return

    def _queue(self, head: Head) -> ModelQueue | None:
        """None where aiohttp's handler has to see to the request: to find its model, to send its answer in pieces, or
        to say that the server stops."""
        model = self._registry.get(head.name) if self.is_open else None
        queue = self._dispatcher.queue(model) if model is not None else None
        return None if queue is None or queue.streams else queue

    def _begin(self, client: Client, head: Head, queue: ModelQueue, body: bytes) -> Exchange:
        now = time.monotonic()
        exchange = Exchange(client, head, queue, now)
        target = head.target
        request = Request(
            body,
            head.content_type,
            head.accept,
            target.method,
            head.message.headers,
            now + target.dialect.timeout,
            exchange,
            head.priority,
            target.query,
            exchange.request_id,
        )
        try:
            self._dispatcher.submit(queue, request)
        except Exception as error:  # the last resort of a request: anything else would end its connection
            exchange.set_exception(error)
        return exchange
