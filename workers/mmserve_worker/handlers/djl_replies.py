"""From the Output that a model.py returned to replies: one, or one for each request of a batch.

Outputs are taken for what they look like, because a model's environment may bring a djl_python of its own.
"""

from __future__ import annotations

import re
from typing import Any

from mmserve_worker.calls import CallError, Reply
from mmserve_worker.handlers.errors import logger

_BATCHED = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)
_UNKNOWN = "application/octet-stream"


def reply(output: Any) -> Reply:
    if output is None:
        return Reply(204, content_type="")
    _check(output)
    stream = getattr(output, "stream_content", None)
    # A stream is sent whole, until answers can be sent in pieces.
    body = _body(_first_of_each(output.content)) if stream is None else b"".join(stream)
    return _finalized(output, _reply(output, body))


def split(output: Any, count: int) -> list[Reply] | None:
    """A reply for each request of a batch; None where the Output does not have one for each."""
    _check(output)
    found: dict[int, dict[str | None, Any]] = {}
    for key, value in zip(output.content.get_keys(), output.content.get_values(), strict=True):
        match = _BATCHED.fullmatch(key or "")
        if match is None:
            return None
        found.setdefault(int(match[1]), {}).setdefault(match[2] or None, value)
    if sorted(found) != list(range(count)):
        return None
    replies = [_reply(output, _body(found[index])) for index in range(count)]
    return [_finalized(output, replies[0]), *replies[1:]]


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
    return bytes(contents.get("data", next(iter(contents.values()))))


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


def _finalized(output: Any, answer: Reply) -> Reply:
    finalizer = getattr(output, "finalizer", None)
    if finalizer is not None:
        try:
            finalizer()
        except Exception:
            # The answer is made: what is cleaned up after it cannot take it back.
            logger.exception("the finalizer of an Output raised")
    return answer
