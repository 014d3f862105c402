"""What a caller is told when a body cannot be read, or an answer cannot be written as asked for."""

from __future__ import annotations

import json

from mmserve_worker.calls import CallError

# Names and values of a caller's body are quoted in messages, which are one line and end up in logs.
_QUOTED_CHARACTERS = 60


def bad_request(reason: str) -> CallError:
    return CallError(400, "BadRequestException", reason)


def unsupported_media_type(reason: str) -> CallError:
    return CallError(415, "UnsupportedMediaTypeException", reason)


def not_acceptable(reason: str) -> CallError:
    return CallError(406, "NotAcceptableException", reason)


def quoted(text: str) -> str:
    """The caller's words on one line, without control characters, cut off where they are long."""
    shown = json.dumps(text[:_QUOTED_CHARACTERS])
    return shown if len(text) <= _QUOTED_CHARACTERS else f"{shown}..."
