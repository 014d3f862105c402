"""One caller's request on its way, and the answer to it. Neither knows HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from mmserve.errors import ModelFailed, ServingError
from mmserve.scheduling.streams import Stream
from mmserve_worker.batch import PartView
from mmserve_worker.calls import Buffer

_NO_HEADERS: dict[str, str] = {}


# Of requests that say none, as for DJL Serving. Lower goes first.
USUAL_PRIORITY = 3


# Names and values, in the order in which they were said.
Query = tuple[tuple[str, str], ...]


class Answer(NamedTuple):
    status: int
    content_type: str
    headers: Mapping[str, str]
    body: bytes
    # What comes after the body, which then is the first piece.
    stream: Stream | None = None


class Recipient(Protocol):
    """Where a request's answer goes: a future of Answer, or what does the same without anybody waiting for it."""

    def done(self) -> bool: ...

    def set_result(self, answer: Answer, /) -> None: ...

    def set_exception(self, error: ServingError, /) -> None: ...


class Request:
    """A request waiting for, or being answered by, a worker. `deadline` is monotonic, in seconds.

    `queued_at` is too. `future` gets the Answer, or the ServingError that there is instead.
    """

    __slots__ = (
        "accept",
        "body",
        "content_type",
        "deadline",
        "deaths",
        "future",
        "headers",
        "method",
        "priority",
        "query",
        "queued_at",
        "request_id",
    )

    def __init__(
        self,
        body: Buffer,
        content_type: str,
        accept: str,
        method: str,
        headers: Mapping[str, str],
        deadline: float,
        future: Recipient,
        priority: int = USUAL_PRIORITY,
        query: Query = (),
        request_id: str = "",
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.accept = accept
        self.method = method
        self.headers = headers
        self.deadline = deadline
        self.future = future
        self.priority = priority
        self.query = query
        self.request_id = request_id
        self.queued_at = 0.0
        # Workers that died holding this request.
        self.deaths = 0

    def fail(self, error: ServingError) -> None:
        """Tells its caller, unless that was answered or has gone."""
        if not self.future.done():
            self.future.set_exception(error)

    def meta(self, *, with_headers: bool) -> bytes:
        """What the worker is told beside the body."""
        if not with_headers:
            return _meta(self.content_type, self.accept, self.method)
        return json.dumps(
            {
                "content_type": self.content_type,
                "accept": self.accept,
                "method": self.method,
                "headers": dict(self.headers),
                "query": self.query,
                "request_id": self.request_id,
            }
        ).encode()


@lru_cache(maxsize=1024)
def _meta(content_type: str, accept: str, method: str) -> bytes:
    """The same few combinations come over and over; the usual one is empty, which the worker need not parse."""
    if content_type in ("", "application/json") and accept in ("", "*/*") and not method:
        return b""
    return json.dumps({"content_type": content_type, "accept": accept, "method": method}).encode()


def read_answer(part: PartView) -> Answer | ModelFailed:
    """What a part of a worker's frame says. The body is copied: the channel's memory is used again."""
    status, meta, body = part
    if not meta:
        return Answer(status, "application/json", _NO_HEADERS, bytes(body))
    said: dict[str, Any] = json.loads(meta)
    if said["error_type"]:
        return ModelFailed(said["error_type"], said["error"], status=status)
    return Answer(status, said["content_type"], said["headers"], bytes(body))
