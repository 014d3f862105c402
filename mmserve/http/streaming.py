"""An answer that is sent in pieces as its model makes them: chunked, or to HTTP/1.0 up to the connection's end.

What cannot be finished is cut off, so that no client takes it for the whole: without the last chunk, or in HTTP/1.0,
where an answer has no end but the connection's, with a reset.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Mapping

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from mmserve.http.model_headers import response_headers
from mmserve.http.plain import BODILESS
from mmserve.scheduling.request import Answer
from mmserve.scheduling.streams import Stream, StreamCut

logger = logging.getLogger("mmserve.http")

# struct linger: on, for no time. What closes then resets.
_RESET = struct.pack("ii", 1, 0)


def streamed_answer(
    answer: Answer, stream: Stream, request_id: str, further: Mapping[str, str] | None = None, *, patience: float
) -> web.StreamResponse:
    """The response, whose pieces go out when it is sent. A client that takes nothing for `patience` seconds is cut off.

    `further` headers are a dialect's own. Raises ModelFailed, as `response_headers` does.
    """
    try:
        headers = CIMultiDict(response_headers(answer, request_id))
        headers.update(further or {})
    except BaseException:
        stream.decline()
        raise
    if answer.status in BODILESS:
        stream.decline()
        return web.Response(status=answer.status, headers=headers)
    return _Streamed(answer, stream, headers, patience)


class _Streamed(web.StreamResponse):
    def __init__(self, answer: Answer, stream: Stream, headers: CIMultiDict[str], patience: float) -> None:
        super().__init__(status=answer.status, headers=headers)
        self._first = answer.body
        self._stream = stream
        self._patience = patience

    async def prepare(self, request: web.BaseRequest) -> None:
        """Sends everything but the end."""
        try:
            await super().prepare(request)
            piece: bytes | None = self._first
            while piece is not None:
                async with asyncio.timeout(self._patience):
                    await self.write(piece)
                piece = await self._stream.next()
        except StreamCut:
            _cut(request, at_once=request.version < HttpVersion11)
        except TimeoutError:
            logger.warning("an answer is cut off: its client has read nothing for %g seconds", self._patience)
            _cut(request, at_once=True)
        finally:
            self._stream.abandon()


def _cut(request: web.BaseRequest, *, at_once: bool) -> None:
    """Ends the connection: when the client has read what was written, or at once."""
    transport = request.transport
    if transport is not None and at_once:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    elif transport is not None:
        transport.close()
    # What aiohttp takes for a client that has gone: it writes nothing more.
    raise ConnectionResetError("The answer was cut off.")
