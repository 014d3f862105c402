"""A connection with a fast lane: who answers which of its requests, and in which order they go out.

aiohttp's handler sleeps while all that comes is plain. What is not waits, with all that comes after it, until the lane
has answered what was before; then the handler is woken, and the lane rests until that sleeps again.

What is aiohttp's own here begins with an underscore and is not promised to stay as it is: setup.cfg says for which
versions it was looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any, cast

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD

from mmserve.http.connection import END, Connection
from mmserve.http.heads import UNKNOWN, Head, measured
from mmserve.http.lane import Exchange, Lane
from mmserve.http.plain import written_response

logger = logging.getLogger("mmserve.http")

# Requests of one connection that are in the lane at one time. More wait in the parser, and then in the socket.
_MOST_PIPELINED = 8


class LaneConnection(Connection):
    __slots__ = ("_ahead", "_emptied", "_exchanges", "_head", "_held", "_is_advancing", "_is_last", "_lane", "_sending")

    def __init__(self, manager: web.Server, lane: Lane, **options: Any) -> None:
        super().__init__(manager, **options)
        self._lane = lane
        # Those that have begun and are not written, in the order of their requests.
        self._exchanges: deque[Exchange] = deque()
        # Bytes that the parser needs for the body of the request it is at: with none, it is between two requests.
        self._ahead = 0
        # What the newest message began with.
        self._head = b""
        # A head that was read before, whose body is to come; and its bytes, which the parser has not seen.
        self._held: tuple[Head, bytes] | None = None
        self._is_advancing = False
        # It is closed as soon as what has begun is written.
        self._is_last = False
        # Done when nothing has begun that is not written, if somebody waits for that.
        self._emptied: asyncio.Future[None] | None = None
        # Sends an answer that comes in pieces, which is that of the first exchange.
        self._sending: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            # aiohttp's handler is at a request, or about to be.
            self._parse(data)
            return
        if not (self._exchanges or self._messages or self._paused):
            if self._begin(data):
                return
            self.begin_reading()
        self._read(data)

    def answered(self) -> None:
        """One of the lane's requests has its answer. The dispatcher, which says so, is in the middle of something:
        nothing new is asked of it."""
        while self._send():
            pass
        if self._messages:
            self._loop.call_soon(self._advance)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._advance()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._sending is not None:
            self._sending.cancel()
        for exchange in self._exchanges:
            self._lane.abandon(exchange)
        self._exchanges.clear()
        self._note_emptied()
        super().connection_lost(exc)

    def close(self) -> None:
        """Closed when what has begun is answered."""
        if self._held is not None:
            self._read(b"")
        else:
            self._advance()
        if self._exchanges and self.transport is not None:
            self._is_last = True
            # uvloop's is one without saying so.
            cast(asyncio.ReadTransport, self.transport).pause_reading()
        else:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Gives clients so many seconds to read their answers."""
        # A client that goes away instead is not to keep the others from reading theirs.
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(timeout):
                if self._exchanges:
                    self._emptied = self._loop.create_future()
                    await self._emptied
                if self.transport is not None:
                    # From now on, writing goes on only when all is written.
                    self.transport.set_write_buffer_limits(0)
                    await self._drain_helper()
        await super().shutdown(timeout)

    def _begin(self, data: bytes) -> bool:
        """Begins with the request that this is, or waits for the body of the one whose head this is, if such a head was
        read before; the parser sees none of it then."""
        if self._held is not None:
            head, _ = self._held
            if len(data) != head.length or not self._begin_with(head, data):
                return False
            self._held = None
            return True
        if self._ahead != 0:
            return False
        end = data.find(END) + len(END)
        known = self._lane.heads.known.get(data[:end])
        if known is None:
            return False
        if len(data) == end + known.length:
            return self._begin_with(known, data[end:])
        if len(data) > end or not self._lane.is_open:
            return False
        self._held = known, data
        self.begin_reading()
        return True

    def _begin_with(self, head: Head, body: bytes) -> bool:
        exchange = self._lane.begin(self, head, body)
        if exchange is None:
            return False
        self.reading_since = 0.0
        self._exchanges.append(exchange)
        if exchange.outcome is not None:
            self._advance()
        return True

    def _read(self, data: bytes) -> None:
        """Has aiohttp parse it and keep the messages as ever, but wake nobody for them yet."""
        waiter, self._waiter = self._waiter, None
        try:
            if self._held is not None:
                _, held = self._held
                self._held = None
                self._parse(held)
            self._parse(data)
        finally:
            self._waiter = waiter
        self._advance()

    def _parse(self, data: bytes) -> None:
        """Has aiohttp parse it, and keeps count of what the parser needs."""
        ahead, messages, parser = self._ahead, len(self._messages), self._parser
        super().data_received(data)
        if self._parser is not parser:
            # It is a new one, which has read nothing.
            self._ahead = 0
        elif ahead > 0:
            self._ahead = max(ahead - len(data), UNKNOWN)
        elif ahead == 0 and data:
            self._ahead = UNKNOWN
            if len(self._messages) == messages + 1:
                self._head, self._ahead = measured(self._messages[-1][0], data)

    def _process_keepalive(self) -> None:
        if self._exchanges or self._messages or self._held is not None or self._paused:
            self._note_use()
        super()._process_keepalive()

    def _note_use(self) -> None:
        """The time that the connection may be idle starts now."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _advance(self) -> None:
        """Goes as far as it can: takes what is plain, sends what is answered, and wakes the handler for the rest."""
        if self._is_advancing:
            # A payload that is read has the parser go on with what it kept back; a refusal is an answer at once.
            return
        self._is_advancing = True
        try:
            while self._take() or self._send():
                pass
        finally:
            self._is_advancing = False
        if self._messages and not (self._exchanges or self._is_last or self._paused):
            self._hand_over()

    def _take(self) -> bool:
        """Has the lane begin with the next request. Says whether it did."""
        messages, exchanges = self._messages, self._exchanges
        if not messages or self._is_last or self._paused or len(exchanges) >= _MOST_PIPELINED:
            return False
        if self._waiter is None or self._waiter.done() or self.transport is None:
            return False
        message, payload = messages[0]
        if not isinstance(message, RawRequestMessage) or not payload.is_eof():
            return False
        exchange = self._lane.take(self, message, payload)
        if exchange is None:
            return False
        if len(messages) == 1 and self._ahead == 0:
            self._lane.heads.keep(self._head, exchange.head)
        messages.popleft()
        exchanges.append(exchange)
        self.end_reading()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return True

    def _hand_over(self) -> None:
        """Wakes aiohttp's handler for what is first now, unless that is only not yet for the lane."""
        if self._waiter is None or self._waiter.done():
            # It is at a request: the time of the next one has not begun.
            return
        message, payload = self._messages[0]
        # Behind thousands of chunks, reading is paused until they are read.
        can_come = not self._reading_paused
        if can_come and isinstance(message, RawRequestMessage) and self._lane.awaits(message, payload):
            self.begin_reading()
        else:
            self._waiter.set_result(None)

    def _send(self) -> bool:
        """Sends the first answer, if it is there. Says whether it did."""
        exchanges = self._exchanges
        if not exchanges or exchanges[0].outcome is None or self._sending is not None or self.transport is None:
            return False
        exchange = exchanges[0]
        last = len(exchanges) == 1 and (self._is_last or not (self._lane.is_open or self._messages))
        try:
            written = None if last else exchange.plain()
            response = exchange.response() if written is None else None
            if written is not None:
                self.transport.write(written)
            elif isinstance(response, web.Response):
                self.transport.writelines(written_response(response, last=last))
            elif response is not None:
                self._sending = self._loop.create_task(self._send_pieces(exchange, response, last=last))
                return False
        except Exception:  # what goes wrong with one answer is not to be the dispatcher's trouble
            self._give_up(exchange)
            return False
        self._sent(last=last)
        return True

    def _give_up(self, exchange: Exchange) -> None:
        logger.exception("request %s: its answer could not be written", exchange.request_id)
        self.force_close()

    async def _send_pieces(self, exchange: Exchange, response: web.StreamResponse, *, last: bool) -> None:
        """Has aiohttp send the answer of a model that was not known to stream. Its next requests are not plain."""
        task = asyncio.current_task()
        assert task is not None
        request = web.BaseRequest(
            exchange.head.message, EMPTY_PAYLOAD, self, StreamWriter(self, self._loop), task, self._loop
        )
        if last:
            response.force_close()
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            # It was cut off.
            self.force_close()
            return
        except Exception:  # as above: the connection would wait for it for ever
            self._give_up(exchange)
            return
        self._sending = None
        self._sent(last=last or self._is_last)
        self._advance()

    def _sent(self, *, last: bool) -> None:
        """The first answer is on its way."""
        self._exchanges.popleft()
        self._note_use()
        self._note_emptied()
        if last:
            self.close()
            if self.transport is not None:
                # aiohttp leaves a connection that waits for a request open until the server ends.
                self.transport.close()

    def _note_emptied(self) -> None:
        if self._emptied is not None and not self._exchanges and not self._emptied.done():
            self._emptied.set_result(None)
