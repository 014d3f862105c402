"""aiohttp's connections with what its low-level server leaves to its user: slow clients, and errors as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE, RequestPayloadError

from mmserve.errors import BadRequest, ServingError
from mmserve.http.answers import error_response, request_id_of

# Of a head, and of a body in chunks.
END = b"\r\n\r\n"
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

# What aiohttp says of it; it has no class of its own.
_TOO_MANY_HEADERS = "Too many headers received"


class HeadersTooLarge(ServingError):
    status = 431
    error_type = "RequestHeaderFieldsTooLargeException"


class Connection(web.RequestHandler):
    """One client's connection. It is closed if a request's arrival takes too long."""

    __slots__ = ("_chunked", "_ending", "reading_since", "untouched")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.reading_since = self._loop.time()
        # Nothing has been received.
        self.untouched = True
        # The body of the newest request while it comes in chunks, and the last bytes that came since that began.
        self._chunked: StreamReader | None = None
        self._ending = b""
        # One fewer than those after which the parser stops and keeps what follows to itself, until so many waited and
        # half of them are answered: it may have counted one too many, which was begun with before its body came.
        self._max_msg_queue_size = MAX_MSG_QUEUE_SIZE - 1
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        # They hold each other, and what is left of the body, until the next collection of garbage.
        self._chunked = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Only while the next request is waited for: what else comes belongs to the one that is being answered, or to a
        # body that nobody wants, which is read for a short while so that its sender sees the answer.
        if not self.reading_since and self._waiter is not None:
            self.reading_since = self._loop.time()
        self.untouched = False
        known = len(self._messages)
        super().data_received(data)
        for place in range(known, len(self._messages)):
            message, payload = self._messages[place]
            if not isinstance(message, RawRequestMessage):
                self._note_broken(message.exc, message.message)
                continue
            self._chunked = payload if message.chunked else None
            if hdrs.UPGRADE in message.headers:
                # Nobody is upgraded. aiohttp's parser loses what comes in one read with the end of a request that asks
                # for it, and takes what follows that for a request, even if it was the body of one: nothing does.
                self._messages[place] = message._replace(should_close=True), payload
        if self._chunked is not None:
            self._ending = (self._ending + data)[-len(END) :]
            if self._chunked.is_eof():
                self._forget_trailers()

    def _note_broken(self, error: BaseException, message: str) -> None:
        """The parser understands nothing of what follows."""
        if self._chunked is not None and not self._chunked.is_eof():
            # aiohttp does not tell who waits for the rest of the body.
            self._chunked.set_exception(RequestPayloadError(_reason(message)))
        self._chunked = None
        # Its frames hold it, and the connection, until the next collection of garbage.
        error.with_traceback(None)

    def _forget_trailers(self) -> None:
        """Has another parser read the next request. aiohttp's takes the last trailer of a chunked body for the first
        header of what it reads next, which behind a proxy may be another client's.

        Not where bytes of the next request came in one read with the end of the body, or the parser may keep some back:
        whoever sends them so has sent the trailer as well.
        """
        # Let go of at once: it may hold a body that nobody has read.
        self._chunked = None
        if self._ending != END or self._buffer_paused:
            return
        # As aiohttp makes its own.
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=RequestPayloadError,
            auto_decompress=True,
            max_msg_queue_size=MAX_MSG_QUEUE_SIZE,
        )

    def close(self) -> None:
        """As aiohttp's, but for what comes in after it, which aiohttp takes in and answers nothing to.

        A connection that waits for a request reads nothing more, so that its client learns that what it sends was not
        read; and one that has only just been made, which aiohttp would then wait for until it is cut off, is closed.
        """
        if self._waiter is not None:
            if not self._messages and self.transport is not None:
                # uvloop's is one without saying so.
                cast(asyncio.ReadTransport, self.transport).pause_reading()
            super().close()
        elif self.untouched:
            self.force_close()
        else:
            super().close()

    def begin_reading(self) -> None:
        """A request's body is waited for. Its time has started with the request's first byte, unless that came while
        another was being answered."""
        if not self.reading_since:
            self.reading_since = self._loop.time()

    def end_reading(self) -> None:
        """A whole request has arrived, or no more of it is wanted; the next one's time starts with its first byte."""
        self.reading_since = 0.0

    def expire(self, before: float) -> None:
        """Closes the connection if what it is receiving began before then."""
        if self.reading_since and self.reading_since < before and self.transport is not None:
            self.transport.write(_TIMED_OUT)
            self.force_close()

    def log_exception(self, *args: Any, exc_info: BaseException | None = None, **named: Any) -> None:
        """Nothing is logged: what clients do wrong is answered to them, and what goes wrong here is caught and logged
        before it gets to aiohttp.

        The frames of such an error hold the body that could not be read, which holds the error: 10 KB that were left to
        the next collection of garbage.
        """
        error = exc_info
        while error is not None:
            error = error.with_traceback(None).__context__ or error.__cause__

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers itself: mostly to what is not HTTP."""
        request_id = request_id_of({})
        reason = _reason(message or "")
        if isinstance(exc, LineTooLong) or reason == _TOO_MANY_HEADERS:
            response = error_response(HeadersTooLarge("The request line or the headers are too large."), request_id)
        elif status == 400:
            response = error_response(BadRequest(f"Not a valid HTTP request: {reason}"), request_id)
        else:
            response = error_response(exc if isinstance(exc, Exception) else RuntimeError(message), request_id)
        response.force_close()
        return response


def _reason(message: str) -> str:
    """Below its first line aiohttp's message has a drawing of where the request is wrong."""
    return message.partition("\n")[0].rstrip(":")


def connection_of(request: web.BaseRequest) -> Connection:
    protocol = request.protocol
    assert isinstance(protocol, Connection)
    return protocol


class ConnectionServer(web.Server):
    """Makes the connections of one listener, by `make`, and closes those that are too slow."""

    def __init__(
        self, handler: Handler, make: Callable[..., Connection] = Connection, *, read_timeout: float, **options: Any
    ) -> None:
        # A client that goes away takes its request with it. (What aiohttp's own server hands on, its types do not say.)
        super().__init__(handler, handler_cancellation=True, **options)  # type: ignore[arg-type]
        self._make = make
        self._options = options
        self._read_timeout = read_timeout
        self._sweeping = self._loop.call_later(read_timeout / 4, self._sweep)

    def __call__(self) -> Connection:
        return self._make(self, loop=self._loop, **self._options)

    def stop_sweeping(self) -> None:
        self._sweeping.cancel()

    def _sweep(self) -> None:
        before = self._loop.time() - self._read_timeout
        for connection in self.connections:
            assert isinstance(connection, Connection)
            connection.expire(before)
        self._sweeping = self._loop.call_later(self._read_timeout / 4, self._sweep)
