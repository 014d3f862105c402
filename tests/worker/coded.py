"""Models made of code, loaded in this process, and what that changes in it put back afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from mmserve_worker import handlers
from mmserve_worker.calls import Handler, ModelSpec, Reply
from tests.worker.handled import call


class Coded:
    """A model's directory, and what is loaded from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, files: Mapping[str, str]) -> None:
        for name, source in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source))

    def load(self, files: Mapping[str, str], options: Mapping[str, str] | None = None) -> Handler:
        self.write(files)
        return handlers.load(ModelSpec("the-model", str(self.directory), options or {}))


@contextmanager
def undone(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[None]:
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is None or origin.startswith(str(directory)):
            del sys.modules[name]


def answer(handler: Handler, body: bytes = b"[1]", **said: object) -> Reply:
    (reply,) = handler.answer([call(body, **said)])
    return reply


def body_of(reply: Reply) -> bytes:
    assert reply.status == 200, reply
    assert isinstance(reply.body, bytes), "in one piece"
    return reply.body


def said(reply: Reply) -> Any:
    return json.loads(body_of(reply))


def mms_handler(expression: str) -> str:
    """A handler of Multi Model Server that does one thing for each request."""
    return f"def handle(data, context):\n    if data is None:\n        return None\n    {expression}\n"


def mms_loaded(coded: Coded, source: str, options: dict[str, str] | None = None) -> Handler:
    return coded.load({"service.py": source}, {"option.handler": "service:handle", **(options or {})})
