"""Responses that are not a model's answer: JSON, and errors as `{"code", "type", "message"}`."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web
from multidict import istr

from mmserve.errors import MethodNotAllowed, ServingError

logger = logging.getLogger("mmserve.http")

# Looked up faster than a str by what holds headers.
REQUEST_ID = istr("x-request-id")

# Unique, after a restart too, without asking the system for random bytes at each request.
_PREFIX = os.urandom(8).hex()
_ids = itertools.count(1)


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's, or one of its own for a request that has none that can be sent back."""
    return said_request_id(headers) or new_request_id()


def said_request_id(headers: Mapping[str, str]) -> str:
    """The caller's, empty if it has none that can be sent back."""
    said = headers.get(REQUEST_ID, "")
    return said if said.isascii() and said.isprintable() else ""


def new_request_id() -> str:
    return f"{_PREFIX}-{next(_ids):x}"


def json_response(content: Any, *, status: int = 200, request_id: str) -> web.Response:
    return web.Response(
        body=_json(content),
        status=status,
        headers={"Content-Type": "application/json", REQUEST_ID: request_id},
    )


def _json(content: Any) -> bytes:
    try:
        return msgspec.json.encode(content)
    except UnicodeEncodeError:
        # Headers and the messages of models may hold what was no UTF-8, as lone surrogates.
        return json.dumps(content).encode()


def error_body(error: ServingError) -> bytes:
    return _json({"code": error.status, "type": error.error_type, "message": str(error)})


def as_serving_error(error: Exception, request_id: str) -> ServingError:
    """What a caller is told. Of a fault of the server's own, the log is told too."""
    if isinstance(error, ServingError):
        return error
    logger.error("request %s failed", request_id, exc_info=error)
    return ServingError(f"{type(error).__name__}: {error}")


def error_response(error: Exception, request_id: str) -> web.Response:
    error = as_serving_error(error, request_id)
    headers = {"Content-Type": "application/json", REQUEST_ID: request_id}
    response = web.Response(body=error_body(error), status=error.status, headers=headers)
    if isinstance(error, MethodNotAllowed):
        response.headers[hdrs.ALLOW] = error.allowed
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
