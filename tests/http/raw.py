"""A client that says on a socket exactly what it is told to, HTTP or not."""

from __future__ import annotations

import json
import select
import socket
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.servers import DEADLINE, Server


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection. Everything that is waited for has a deadline."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(server.address, timeout=DEADLINE)
        # What is sent goes out at once, in a segment of its own.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def end_sending(self) -> None:
        """Says that nothing more will come, and still reads."""
        self._socket.shutdown(socket.SHUT_WR)

    def response(self) -> Response:
        """The next response of the connection."""
        status_line = self._reader.readline()
        assert status_line.startswith(b"HTTP/1."), f"no response but {status_line!r}"
        headers = {}
        while line := self._reader.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self._reader.read(int(headers.get("content-length", "0")))
        return Response(int(status_line.split()[1]), headers, body)

    def chunk(self) -> bytes:
        """The next chunk of a chunked response; empty at its end, or where it is cut off."""
        length = int(self._reader.readline() or b"0", 16)
        chunk = self._reader.read(length)
        self._reader.readline()
        return chunk

    def chunks(self) -> list[bytes]:
        """Those of a response that has begun, up to its end."""
        found = []
        while chunk := self.chunk():
            found.append(chunk)
        return found

    def some(self) -> bytes:
        """What has come; empty at the connection's end."""
        return self._reader.read1()

    def rest(self) -> bytes:
        """What comes until the server closes the connection."""
        try:
            return self._reader.read()
        except ConnectionResetError:
            return b""

    def seconds_until_closed(self) -> float:
        start = time.monotonic()
        self.rest()
        return time.monotonic() - start

    def trickle(self, content: bytes, *, every: float, deadline: float) -> None:
        """Sends a byte at a time until the server has closed the connection."""
        end = time.monotonic() + deadline
        for byte in content:
            readable, _, _ = select.select([self._socket], [], [], every)
            if readable:
                return
            assert time.monotonic() < end, "the server goes on reading"
            self.send(bytes([byte]))

    def repeat(self, request: bytes, *, seconds: float) -> None:
        """Sends a request over and over, each of which must be answered with 200."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(request)
            assert self.response().status == 200
            # So that the time passes, and the server is not kept busy by it.
            select.select([self._socket], [], [], 0.05)


def post(path: str, body: bytes = b"[[1.0]]", *headers: str, version: str = "1.1") -> bytes:
    """A request with its length, as a client would send it."""
    lines = [f"POST {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(path: str, *chunks: bytes, headers: tuple[str, ...] = ()) -> bytes:
    """A request in chunks, the last one included."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", "Transfer-Encoding: chunked", *headers]
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b"")]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"".join(pieces)


def rows_of(size: int) -> bytes:
    """A body of so many bytes that is a row the model answers."""
    return b"[[1.0]]".ljust(size)
