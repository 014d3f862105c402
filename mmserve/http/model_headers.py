"""The headers of a model's answer: the usual ones, and what a model with code of its own adds to them."""

from __future__ import annotations

import re

from aiohttp import hdrs

from mmserve.errors import ModelFailed
from mmserve.http.answers import REQUEST_ID
from mmserve.scheduling.request import Answer

# How an answer is sent is the server's to say, and so is the id that its caller has to find again.
_OURS = frozenset(
    {
        REQUEST_ID,
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "keep-alive",
        "server",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


def response_headers(answer: Answer, request_id: str) -> dict[str, str]:
    """Raises ModelFailed for what cannot be sent: the client would get no answer at all."""
    headers: dict[str, str] = {REQUEST_ID: request_id}
    if answer.content_type:
        headers[hdrs.CONTENT_TYPE] = answer.content_type
    if answer.headers or not answer.content_type.isprintable():
        _add(answer, headers)
    return headers


def _add(answer: Answer, headers: dict[str, str]) -> None:
    for name, value in (*answer.headers.items(), (hdrs.CONTENT_TYPE, answer.content_type)):
        if _NAME.fullmatch(name) is None or _UNSENDABLE.search(value) is not None:
            raise ModelFailed("ModelException", f"The model's answer has a header that cannot be sent: {name!a}.")
        if name.lower() not in _OURS:
            headers[name] = value
