"""The fast lane: plain inference requests from the parser to the queue, and their answers to the socket.

    bytes ──► aiohttp's parser ──► plain? ── yes ──► Lane.take ──► the model's queue ──► Exchange ──► bytes
                                     └───── no ───► aiohttp's handler, inference.py

A request is plain if it is for a model that is known, its body is small, and it asks nothing of the connection. What is
not plain goes to aiohttp's handler on the same connection, in its turn: both get what one parser has understood, so
that there is nothing that one of them would read differently. No task, request or response object is made for a plain
one.
"""

from __future__ import annotations

import time
from typing import Protocol

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from mmserve.errors import ServingError
from mmserve.http.answers import CLIENT_GONE, request_id_of
from mmserve.http.asking import asked
from mmserve.http.dialect import Dialect, Outcome
from mmserve.http.targets import Targets
from mmserve.models.registry import Registry
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import Answer

# Bytes of a body for which it is waited here; one read of a socket brings more.
_SMALL = 64 * 1024


class Client(Protocol):
    """A connection, which is told when one of its answers is there."""

    def answered(self) -> None: ...


class Exchange:
    """One request of the lane and what came of it. Takes the place of the future that the dispatcher answers."""

    __slots__ = ("_arrived", "_client", "dialect", "gone", "message", "outcome", "queue", "request_id")

    def __init__(
        self, client: Client, message: RawRequestMessage, dialect: Dialect, queue: ModelQueue, arrived: float
    ) -> None:
        self.message = message
        self.dialect = dialect
        self.queue = queue
        self.request_id = request_id_of(message.headers)
        self.outcome: Outcome | None = None
        # Its client has.
        self.gone = False
        self._client = client
        self._arrived = arrived

    def done(self) -> bool:
        return self.outcome is not None or self.gone

    def set_result(self, answer: Answer) -> None:
        self._set(answer, answer.status)

    def set_exception(self, error: Exception) -> None:
        self._set(error, error.status if isinstance(error, ServingError) else ServingError.status)

    def plain(self) -> bytes | None:
        """All of the answer, if it is a usual one."""
        assert self.outcome is not None
        return self.dialect.plain(self.message.headers, self.outcome, self.request_id)

    def response(self) -> web.StreamResponse:
        assert self.outcome is not None
        return self.dialect.response(self.message.headers, self.outcome, self.request_id)

    def abandon(self) -> None:
        """The client has gone."""
        if isinstance(self.outcome, Answer) and self.outcome.stream is not None:
            self.outcome.stream.abandon()
        elif self.outcome is None and not self.gone:
            self.gone = True
            self._count(CLIENT_GONE)

    def _set(self, outcome: Outcome, status: int) -> None:
        self.outcome = outcome
        self._count(status)
        self._client.answered()

    def _count(self, status: int) -> None:
        self.queue.pool.stats.answered(status, time.monotonic() - self._arrived)


class Lane:
    """Decides of each request whether it is plain, and submits it."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, targets: Targets, *, max_size: int) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._targets = targets
        self._max_size = min(max_size, _SMALL)
        # Shut as soon as the server stops: aiohttp's handler says so to those who still ask.
        self.is_open = True

    def awaits(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Whether a request may become plain by the rest of its body, which is on its way."""
        return (
            self._is_simple(message)
            and not payload.is_eof()
            and payload.exception() is None
            and payload.total_bytes <= self._max_size
            and _length(message) <= self._max_size
            and message.path in self._targets.known
        )

    def take(self, client: Client, message: RawRequestMessage, payload: StreamReader) -> Exchange | None:
        """The exchange that has begun with a request whose body is there, or None for one that is not plain."""
        target = self._targets.known.get(message.path)
        if target is None or not self._is_simple(message) or payload.total_bytes > self._max_size:
            return None
        headers = message.headers
        model = self._registry.get(target.model or target.dialect.addressed(headers) or "")
        if model is None:
            return None
        queue = self._dispatcher.queue(model)
        if queue.streams:
            return None
        now = time.monotonic()
        exchange = Exchange(client, message, target.dialect, queue, now)
        try:
            target.dialect.check(headers)
            request = asked(target, headers, payload.read_nowait(), now, exchange, exchange.request_id)
            self._dispatcher.submit(queue, request)
        except Exception as error:  # the last resort of a request: anything else would end its connection
            exchange.set_exception(error)
        return exchange

    def abandon(self, exchange: Exchange) -> None:
        """The client has gone: its request goes too, unless a worker already has it."""
        exchange.abandon()
        for request in exchange.queue.waiting:
            if request.future is exchange:
                self._dispatcher.withdraw(exchange.queue, request)
                return

    def _is_simple(self, message: RawRequestMessage) -> bool:
        """Whether it asks nothing of the connection that only aiohttp's handler does."""
        headers = message.headers
        return (
            self.is_open
            and message.method == hdrs.METH_POST
            and message.version == HttpVersion11
            and not message.should_close
            and not message.upgrade
            and hdrs.EXPECT not in headers
            and hdrs.CONTENT_ENCODING not in headers
        )


def _length(message: RawRequestMessage) -> int:
    """Bytes that the body will have, 0 if that is not said. The parser has let numbers through, and nothing else."""
    return int(message.headers.get(hdrs.CONTENT_LENGTH, "0"))
