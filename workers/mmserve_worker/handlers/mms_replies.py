"""From what a handler of Multi Model Server or SageMaker returned to a reply: bytes and texts go out as they are, all
else as JSON, with the status and headers that its context has."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmserve_worker.calls import CallError, Reply
from mmserve_worker.codecs import json_text
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, logger, model_failure
from mmserve_worker.handlers.mms_context import RequestProcessor

_JSON = "application/json"


def reply(value: Any, processor: RequestProcessor, content_type: str = "") -> Reply:
    """`content_type` is what an answer is that does not say it."""
    body, is_of_type = body_of(value)
    headers = {str(name): str(said) for name, said in processor.get_response_headers().items()}
    said = [headers.pop(name) for name in list(headers) if name.lower() == "content-type"]
    status = processor.get_response_status_code()
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise CallError(424, "ModelException", f"invalid status code: {status!r}")
    return Reply(status, said[-1] if said else content_type or is_of_type, body, headers)


def body_of(value: Any) -> tuple[bytes, str]:
    """The bytes, and what they are as far as the value's type tells."""
    if isinstance(value, str):
        return value.encode(), "text/plain; charset=utf-8"
    if isinstance(value, bytes | bytearray | memoryview):
        # A copy: what a handler keeps, it may write to.
        return bytes(value), "application/octet-stream"
    return json_text.dumps(value, _json_of_other).encode(), _JSON


def _json_of_other(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def refusal(error: BaseException, model: str) -> Reply:
    """The answer to a call whose handler raised. An exception with a status of its own, as PredictionException, is
    taken for what it looks like: a model's environment may bring the class itself."""
    try:
        status = getattr(error, "error_code", getattr(error, "status_code", None))
        if isinstance(status, int) and 400 <= status <= 599:
            message = str(getattr(error, "message", error)).strip() or type(error).__name__
            return CallError(status, type(error).__name__, message.splitlines()[0][:500]).reply()
    except RAISED_BY_MODELS:
        # What it says of itself is code of the model's as well.
        logger.warning("model %s raised a %s that cannot be read", model, type(error).__name__)
    return model_failure(error, model)
