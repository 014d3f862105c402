"""Responses that are not a model's answer: JSON, and errors as `{"code", "type", "message"}`."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from aiohttp import web

from mmserve.errors import ServingError

logger = logging.getLogger("mmserve.http")

REQUEST_ID = "x-request-id"


def json_response(content: Any, *, status: int = 200, request_id: str) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(content),
        status=status,
        headers={"Content-Type": "application/json", REQUEST_ID: request_id},
    )


def error_response(error: ServingError, request_id: str) -> web.Response:
    response = json_response(
        {"code": error.status, "type": error.error_type, "message": str(error)},
        status=error.status,
        request_id=request_id,
    )
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def unexpected(error: Exception, request_id: str) -> web.Response:
    """A fault of the server's own."""
    logger.error("request %s failed", request_id, exc_info=error)
    return error_response(ServingError(f"{type(error).__name__}: {error}"), request_id)
