"""What the handlers' tests share: a model saved, loaded and called as a worker would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib

from mmserve_worker import handlers
from mmserve_worker.calls import Call, Handler, ModelSpec, Reply


def loaded(directory: Path, model: Any, options: Mapping[str, str] | None = None) -> Handler:
    joblib.dump(model, directory / "model.joblib")
    return handlers.load(ModelSpec("the-model", str(directory), options or {}))


def call(value: Any, **said: Any) -> Call:
    """A call as it arrives: its body is a view of memory that is not the handler's."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Call(memoryview(bytearray(body)), **said)


def predictions(reply: Reply) -> Any:
    assert (reply.status, reply.error) == (200, "")
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)["predictions"]


def answered(handler: Handler, value: Any, **said: Any) -> Any:
    (reply,) = handler.answer([call(value, **said)])
    return predictions(reply)


def refused(handler: Handler, value: Any, **said: Any) -> tuple[int, str, str]:
    (reply,) = handler.answer([call(value, **said)])
    assert reply.body == b""
    assert "\n" not in reply.error
    return reply.status, reply.error_type, reply.error
