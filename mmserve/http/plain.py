"""The answer to a plain request, and its refusal, written in one piece.

aiohttp's own Response, which stays for whatever is not plain, puts the same few headers together for a fifth of the
front's time: with it a request cost 1.3 times the CPU that it costs a bare aiohttp server, with this 1.06 times. And
what a refusal costs is taken from those who are not refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web

from mmserve.errors import QueueFull
from mmserve.http.answers import REQUEST_ID, error_body
from mmserve.scheduling.request import Answer

# Statuses whose answers have no body.
BODILESS = (204, 304)
# Bytes; a larger body is not worth a copy behind its headers.
_LARGEST = 64 * 1024


def written_answer(answer: Answer, request_id: str, further: Mapping[str, str] | None = None) -> bytes | None:
    """All of a usual answer on a connection that stays, with `further` headers; None for an unusual one."""
    body = answer.body
    if (
        answer.status != 200
        or answer.headers
        or answer.stream is not None
        or answer.content_type not in _PLAIN_TYPES
        or len(body) > _LARGEST
    ):
        return None
    lines = "".join([f"{name}: {value}\r\n" for name, value in further.items()]) if further else ""
    head = _head(answer.content_type, len(body), _date())
    return b"%b%b\r\n\r\n%b" % (head, f"{lines}{REQUEST_ID}: {request_id}".encode(), body)


@lru_cache(maxsize=256)
def _head(content_type: str, length: int, date: str) -> bytes:
    """What the answers of one second have in common."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nDate: {date}\r\n".encode()


def written_refusal(error: QueueFull, request_id: str) -> bytes:
    """The same for an error."""
    body = error_body(error)
    head = (
        f"HTTP/1.1 {error.status} Too Many Requests\r\nContent-Type: application/json\r\n"
        f"Retry-After: {error.retry_after}\r\n{REQUEST_ID}: {request_id}\r\n"
        f"Content-Length: {len(body)}\r\nDate: {_date()}\r\n\r\n"
    )
    return head.encode() + body


def written_response(response: web.Response, *, last: bool) -> list[bytes]:
    """Any response that is no stream as aiohttp's handler would send it, in pieces; `last` on its connection, if so."""
    body = response.body
    assert isinstance(body, bytes | None)
    lines = [f"{name}: {value}\r\n" for name, value in response.headers.items()]
    if response.status not in BODILESS:
        lines.append(f"Content-Length: {len(body or b'')}\r\n")
    if last:
        lines.append("Connection: close\r\n")
    head = f"HTTP/1.1 {response.status} {response.reason}\r\n{''.join(lines)}Date: {_date()}\r\n\r\n"
    return [head.encode(), body] if body and response.status not in BODILESS else [head.encode()]


def stays(request: web.BaseRequest) -> bool:
    """Whether the connection is for more requests than this one."""
    return bool(request.version == HttpVersion11 and request.keep_alive)


# What codecs answer in; a model's own code may say anything, which then is looked at.
_PLAIN_TYPES = frozenset({"application/json", "text/csv", "application/jsonlines", "application/x-npy"})


class PlainResponse(web.StreamResponse):
    """What has been written already, for aiohttp's handler to send."""

    _keep_alive = True

    def __init__(self, written: bytes) -> None:
        # Not StreamResponse's own, which makes the containers that this does without.
        self._written = written

    async def prepare(self, request: web.BaseRequest) -> None:
        """Writes everything, and waits if the client does not read."""
        writer = request.writer
        if request.transport is None:
            raise ConnectionResetError("The client has gone.")
        request.transport.write(self._written)
        writer.output_size = len(self._written)
        await writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything has been written."""


class _Clock:
    """The Date header, made anew once a second."""

    second = 0
    text = ""


def _date() -> str:
    second = int(time.time())
    if second != _Clock.second:
        _Clock.second, _Clock.text = second, formatdate(second, usegmt=True)
    return _Clock.text
