"""What a handler gets and what it gives back, whatever the API dialect and the model's framework.

A `Call` is one caller's request, a `Reply` the answer to it; a batch is a list of calls for one model. Handlers never
see the channel, and the worker's loop never looks into a body.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

# Anything that supports the buffer protocol as one run of bytes.
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model as the front describes it to a worker.

    `options` are the keys of its serving.properties, as strings, unchanged (`option.method`, `batch_size`, ...).
    """

    name: str
    directory: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request. `content_type`, `accept` and `method` are empty where the caller said nothing.

    `body` may be a view of the channel's memory: it is valid until the reply has been sent, so that a reply may be
    a view of it too.
    `headers`, the `query` (names and values) and the `request_id` are filled for models with code of their own only.
    """

    body: Buffer
    content_type: str = ""
    accept: str = ""
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    request_id: str = ""


@dataclass(slots=True)
class Reply:
    """One answer. `body` may be several buffers, sent one behind the other without being joined first.

    An answer with an `error_type` is an error: its body is empty and `error` says what happened, in one line.
    With a `stream`, `body` is only its first piece, and the others are sent as they are made. The stream is always
    closed. `finished` is called when the answer has been sent.
    """

    status: int = 200
    content_type: str = "application/json"
    body: Buffer | tuple[Buffer, ...] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    error_type: str = ""
    error: str = ""
    stream: Generator[bytes] | None = None
    finished: Callable[[], object] | None = None


class CallError(Exception):
    """A call that cannot be answered: the HTTP status and the type name that its caller is told."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type

    def reply(self) -> Reply:
        return Reply(status=self.status, error_type=self.error_type, error=str(self))


class Handler(Protocol):
    """A loaded model. It answers every call of a batch, in order, and raises for none of them."""

    def answer(self, calls: Sequence[Call]) -> list[Reply]: ...
