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
from mmserve.http.connection import END
from mmserve.http.targets import Target, Targets

# Heads that are kept; one more, and all are parsed anew. Longer ones, in bytes, are none that are sent often.
_MOST = 4096
_LONGEST = 1024
# Headers in one that is kept: clients send a dozen, and each takes ten times the memory of its bytes.
_MOST_HEADERS = 40
# Digits of a Content-Length: Python refuses to read thousands, which may be zeros that the parser takes.
_MOST_DIGITS = 18
# Nobody knows whether the parser is between two requests.
UNKNOWN = -1
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
        headers = read.message.headers
        if len(head) > _LONGEST or len(headers) > _MOST_HEADERS or read.length < 0:
            return
        if any(name in headers for name in _UNIQUE):
            return
        if len(self.known) >= _MOST:
            self.known.clear()
        self.known[head] = read


def measured(message: object, data: bytes) -> tuple[bytes, int]:
    """The head of a message that was parsed from these bytes and begins with them; and how many more the parser needs
    for its body."""
    end = data.find(END) + len(END)
    head = data[:end]
    length = UNKNOWN
    # A body that cannot be decompressed leaves the parser in the middle of it.
    if isinstance(message, RawRequestMessage) and not message.upgrade and not message.compression:
        length = body_length(message.headers)
    # It is certain that END was the end only where no line ends in another way, and none is empty.
    lines = head.count(b"\n")
    if length < 0 or lines != head.count(b"\r\n") or data.startswith(b"\r") or len(data) > end + length:
        return head, UNKNOWN
    return head, end + length - len(data)


def body_length(headers: Mapping[str, str]) -> int:
    """Bytes that a request with these headers has after them, -1 if that is not said or said otherwise."""
    said = headers.get(hdrs.CONTENT_LENGTH, "")
    if len(said) > _MOST_DIGITS or not said.isascii() or not said.isdecimal() or hdrs.TRANSFER_ENCODING in headers:
        return -1
    return int(said)
