"""Reads request bodies, bounded each and all together."""

from __future__ import annotations

from aiohttp import hdrs, web

from mmserve.errors import BadRequest, Overloaded, PayloadTooLarge
from mmserve.http.connection import connection_of

# Bodies up to this size are read without any account of them: one read of a socket brings more.
_SMALL = 64 * 1024


class BodyReader:
    """`max_size` bounds one body, `max_buffered` those above 64 KiB of all requests together. Bytes."""

    def __init__(self, max_size: int, max_buffered: int) -> None:
        self._max_size = max_size
        self._max_buffered = max_buffered
        self._buffered = 0

    def arrived(self, request: web.BaseRequest) -> bytes | None:
        """The body if all of it came with the headers, as small ones do, and as it is: there is nothing to wait for."""
        content, headers = request.content, request.headers
        if not content.is_eof() or hdrs.EXPECT in headers or hdrs.CONTENT_ENCODING in headers:
            return None
        connection_of(request).end_reading()
        body: bytes = content.read_nowait()
        if len(body) > self._max_size:
            raise self._too_large(len(body))
        return body

    async def read(self, request: web.BaseRequest) -> bytes | bytearray:
        """The body. One that is not bytes is accounted for until `release` is called with it.

        Raises PayloadTooLarge, Overloaded, or BadRequest for one that ends too early.
        """
        connection = connection_of(request)
        connection.begin_reading()
        try:
            return await self._read(request)
        finally:
            connection.end_reading()

    def release(self, body: bytes | bytearray) -> None:
        if isinstance(body, bytearray):
            self._buffered -= len(body)

    async def _read(self, request: web.BaseRequest) -> bytes | bytearray:
        length = request.content_length
        headers = request.headers
        if length is not None and length > self._max_size:
            raise self._too_large(length)
        if hdrs.EXPECT in headers:
            await self._answer_expectation(request)
        if length is not None and length <= _SMALL and hdrs.CONTENT_ENCODING not in headers:
            return await request.read()
        return await self._read_large(request)

    async def _read_large(self, request: web.BaseRequest) -> bytearray:
        body = bytearray()
        try:
            while chunk := await request.content.readany():
                if len(body) + len(chunk) > self._max_size:
                    raise PayloadTooLarge(f"The body has more bytes than max_request_size allows ({self._max_size}).")
                if self._buffered + len(chunk) > self._max_buffered:
                    raise Overloaded("Too many large requests at once; max_buffered_bytes allows no more.")
                body += chunk
                self._buffered += len(chunk)
        except BaseException as error:
            self.release(body)
            if isinstance(error, web.RequestPayloadError):
                # The last line of aiohttp's message says what, those before it that there was something.
                raise BadRequest(f"The body cannot be read: {str(error).splitlines()[-1].strip()}.") from error
            raise
        return body

    def _too_large(self, length: int) -> PayloadTooLarge:
        return PayloadTooLarge(f"The body has {length} bytes; max_request_size allows {self._max_size}.")

    async def _answer_expectation(self, request: web.BaseRequest) -> None:
        if request.headers[hdrs.EXPECT].lower() != "100-continue":
            raise BadRequest(f"Expect: {request.headers[hdrs.EXPECT]} is not supported; 100-continue is.")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # What has been written is not the response yet.
        request.writer.output_size = 0
