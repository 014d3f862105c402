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

from mmserve.errors import MethodNotAllowed, ServingError

logger = logging.getLogger("mmserve.http")

REQUEST_ID = "x-request-id"

# Unique, after a restart too, without asking the system for random bytes at each request.
_PREFIX = os.urandom(8).hex()
_ids = itertools.count(1)


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's, or one of its own for a request that has none that can be sent back."""
    said = headers.get(REQUEST_ID)
    return said if said and said.isascii() and said.isprintable() else f"{_PREFIX}-{next(_ids):x}"


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


def error_response(error: ServingError, request_id: str) -> web.Response:
    headers = {"Content-Type": "application/json", REQUEST_ID: request_id}
    response = web.Response(body=error_body(error), status=error.status, headers=headers)
    if isinstance(error, MethodNotAllowed):
        response.headers[hdrs.ALLOW] = error.allowed
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def unexpected(error: Exception, request_id: str) -> web.Response:
    """A fault of the server's own."""
    logger.error("request %s failed", request_id, exc_info=error)
    return error_response(ServingError(f"{type(error).__name__}: {error}"), request_id)
