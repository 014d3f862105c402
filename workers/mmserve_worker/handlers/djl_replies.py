"""From the Output that a model.py returned to replies: one, or one for each request of a batch.

Outputs are taken for what they look like, because a model's environment may bring a djl_python of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import Any

from mmserve_worker.calls import CallError, Reply
from mmserve_worker.handlers import djl_output

_BATCHED = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)
_UNKNOWN = "application/octet-stream"


def reply(output: Any) -> Reply:
    if output is None:
        return Reply(204, content_type="")
    _check(output)
    stream = getattr(output, "stream_content", None)
    if stream is not None:
        return _streamed(output, stream)
    answer = _reply(output, _body(_first_of_each(output.content)))
    answer.finished = _finalizer(output)
    return answer


def split(output: Any, count: int) -> list[Reply] | None:
    """A reply for each request of a batch; None where the Output does not have one for each."""
    _check(output)
    if getattr(output, "stream_content", None) is not None:
        return None
    found: dict[int, dict[str | None, Any]] = {}
    for key, value in zip(output.content.get_keys(), output.content.get_values(), strict=True):
        match = _BATCHED.fullmatch(key or "")
        if match is None:
            return None
        found.setdefault(int(match[1]), {}).setdefault(match[2] or None, value)
    if sorted(found) != list(range(count)):
        return None
    replies = [_reply(output, _body(found[index])) for index in range(count)]
    replies[-1].finished = _finalizer(output)
    return replies


def described(output: Any) -> str:
    answer = reply(output)
    body = answer.body if isinstance(answer.body, bytes) else b""
    return f"{answer.status}: {body.decode('utf-8', 'replace')}"


def _check(output: Any) -> None:
    if not all(hasattr(output, name) for name in ("code", "properties", "content")):
        raise CallError(424, "ModelException", f"Invalid output type: {type(output)}")
    if not isinstance(output.code, int) or not 200 <= output.code <= 599:
        raise CallError(424, "ModelException", f"invalid status code: {output.code!r}")


def _body(contents: dict[str | None, Any]) -> bytes:
    """The entry called `data`, else the first."""
    if not contents:
        return b""
    # By way of a view: of a number, bytes() would make as many zeros.
    return bytes(memoryview(contents.get("data", next(iter(contents.values())))))


def _first_of_each(content: Any) -> dict[str | None, Any]:
    contents: dict[str | None, Any] = {}
    for key, value in zip(content.get_keys(), content.get_values(), strict=True):
        contents.setdefault(key, value)
    return contents


def _reply(output: Any, body: bytes) -> Reply:
    headers = {str(name): str(value) for name, value in output.properties.items()}
    content_type = getattr(output, "added_as", None) or _UNKNOWN
    for name in [name for name in headers if name.lower() == "content-type"]:
        content_type = headers.pop(name)
    return Reply(output.code, content_type if body else "", body, headers)


def _streamed(output: Any, stream: Iterable[Any]) -> Reply:
    """The first piece is made here, so that what fails before it is an error like any other."""
    pieces = _pieces(stream)
    first = next(pieces, b"")
    answer = _reply(output, first)
    answer.finished = _finalizer(output)
    if first:
        answer.stream = pieces
    return answer


def _pieces(stream: Iterable[Any]) -> Generator[bytes]:
    try:
        for piece in stream:
            # Nothing is not a piece: in HTTP it would be the end.
            if chunk := djl_output.chunk(piece):
                yield chunk
    finally:
        # At once, and not when it is collected: the model may hold something for as long as it is asked for more.
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def _finalizer(output: Any) -> Callable[[], object] | None:
    finalizer: Callable[[], object] | None = getattr(output, "finalizer", None)
    return finalizer
