"""What the heads of requests say, kept by their bytes: most clients send the same one over and over.

A head that is byte for byte one that the parser has understood before means the same again, so neither parsing it nor
looking its headers up is done twice. Only whole requests to models are kept, with a Content-Length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import HttpVersion11, hdrs
from aiohttp.http_parser import RawRequestMessage

from mmserve.errors import ServingError
from mmserve.http.answers import said_request_id
from mmserve.http.asking import priority_of
from mmserve.http.targets import Target, Targets

END = b"\r\n\r\n"
# Heads that are kept; one more, and all are parsed anew. Longer ones, in bytes, are none that are sent often.
_MOST = 4096
_LONGEST = 1024
# What is another in each request makes a head that does not come again.
_UNIQUE = ("x-request-id", "x-amzn-trace-id", "x-amz-date", "amz-sdk-invocation-id", "traceparent", "date")


@dataclass(frozen=True, slots=True)
class Head:
    """One plain request but for its body, which has `length` bytes if that was said, and else -1."""

    message: RawRequestMessage
    target: Target
    # Of the model.
    name: str
    content_type: str
    accept: str
    priority: int
    # Empty where the client has said none.
    request_id: str
    length: int


class Heads:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self.known: dict[bytes, Head] = {}

    def read(self, message: RawRequestMessage) -> Head | None:
        """None for what is not plain, or wrong: aiohttp's handler sees to that."""
        target = self._targets.known.get(message.path)
        headers = message.headers
        if (
            target is None
            or message.method != hdrs.METH_POST
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or hdrs.EXPECT in headers
            or hdrs.CONTENT_ENCODING in headers
        ):
            return None
        name = target.model or target.dialect.addressed(headers)
        if not name:
            return None
        try:
            target.dialect.check(headers)
            priority = priority_of(headers)
        except ServingError:
            return None
        return Head(
            message,
            target,
            name,
            headers.get(hdrs.CONTENT_TYPE, ""),
            headers.get(hdrs.ACCEPT, ""),
            priority,
            said_request_id(headers),
            body_length(headers),
        )

    def keep(self, head: bytes, read: Head) -> None:
        """`head` is what the parser has read, up to END and with it."""
        if len(head) > _LONGEST or read.length < 0 or any(name in read.message.headers for name in _UNIQUE):
            return
        if len(self.known) >= _MOST:
            self.known.clear()
        self.known[head] = read


def body_length(headers: Mapping[str, str]) -> int:
    """Bytes that a request with these headers has after them, -1 if that is not said or said otherwise."""
    said = headers.get(hdrs.CONTENT_LENGTH, "")
    return int(said) if said.isascii() and said.isdecimal() and hdrs.TRANSFER_ENCODING not in headers else -1
