"""The Output that a model.py written for DJL Serving returns."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any

import numpy as np

from mmserve_worker.handlers import ndlist
from mmserve_worker.handlers.djl_pair_list import PairList


class Output:
    """The answer to one Input: a status, properties that become headers, and content."""

    def __init__(self, code: int = 200, message: str = "OK") -> None:
        self.code = code
        self.message = message
        self.properties: dict[str, Any] = {}
        self.content = PairList()
        self.stream_content: Iterable[Any] | None = None
        # What the content is if no property says so, as far as the way that it was added tells.
        self.added_as: str | None = None
        self.finalizer: Callable[[], object] | None = None

    def set_code(self, code: int) -> Output:
        self.code = code
        return self

    def set_message(self, message: str) -> Output:
        self.message = message
        return self

    def add_property(self, key: str, value: Any) -> Output:
        self.properties[key] = value
        return self

    def get_property(self, key: str) -> Any:
        return self.properties.get(key)

    def get_properties(self) -> dict[str, Any]:
        return self.properties

    def error(self, error: str, code: int = 424, message: str = "invoke handler failure") -> Output:
        self.code = code
        self.message = message
        self.content = PairList()
        self.add_property("Content-Type", "application/json")
        return self.add({"code": code, "message": message, "error": error})

    def add(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Output:
        if isinstance(value, str):
            return self._add(value.encode(), "text/plain", key, batch_index)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._add(bytes(value), "application/octet-stream", key, batch_index)
        if value is None:
            return self
        return self.add_as_json(value, key, batch_index)

    def add_as_json(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Output:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_of_other)
        return self._add(text.encode(), "application/json", key, batch_index)

    def add_as_numpy(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Output:
        return self._add(ndlist.encode(value), "tensor/ndlist", key, batch_index)

    def add_as_npz(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Output:
        file = io.BytesIO()
        np.savez(file, *([value] if isinstance(value, np.ndarray) else value))
        return self._add(file.getvalue(), "tensor/npz", key, batch_index)

    def _add(self, data: bytes, added_as: str, key: str | None, batch_index: int | None) -> Output:
        name = None if key is None else str(key)
        if batch_index is not None:
            name = f"batch_{batch_index}.{name or ''}"
        self.content.add(name, data)
        self.added_as = self.added_as or added_as
        return self

    def add_stream_content(self, stream: Iterable[Any], output_formatter: Any = "default") -> Output:
        if output_formatter is None:
            self.stream_content = stream
        elif callable(output_formatter):
            self.stream_content = _formatted(stream, output_formatter)
        else:
            self.stream_content = _formatted(stream, _json_line)
            self.added_as = "application/jsonlines"
        return self

    def finalize(self, function: Callable[..., object], *arguments: Any) -> Output:
        self.finalizer = lambda: function(*arguments)
        return self


def _formatted(stream: Iterable[Any], formatter: Callable[[Any], Any]) -> Iterator[Any]:
    try:
        for token in stream:
            yield formatter(token)
    finally:
        # A generator is closed with the one that is made of it.
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def _json_line(token: Any) -> bytes:
    return chunk({"outputs": token}) + b"\n"


def chunk(token: Any) -> bytes:
    if isinstance(token, bytes | bytearray):
        return bytes(token)
    if isinstance(token, str):
        return token.encode()
    return json.dumps(token, ensure_ascii=False, default=_json_of_other).encode()


def _json_of_other(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no JSON form")
