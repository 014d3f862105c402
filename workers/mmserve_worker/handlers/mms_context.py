"""What a handler of Multi Model Server or TorchServe is told beside the data: the context of a batch.

Names are those that handlers use. Headers are found however their names are written, unlike there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmserve_worker.calls import Call

logger = logging.getLogger("mmserve.model")

# The server whose contract this is, and the version of it; handlers look at both.
_SERVER = "MMS"
_SERVER_VERSION = "1.1.11"


class Headers(dict[str, str]):
    """A request's headers as they were sent, found by their names in any case."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._names = {name.lower(): name for name in headers}

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(self._names.get(name.lower(), name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._names

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(self._names.get(name.lower(), name), default)


class RequestProcessor:
    """One request's headers, and what is to be said in its answer."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self._status = 200
        self._phrase: str | None = None
        self._response_headers: dict[str, str] = {}

    def get_request_property(self, key: str) -> str | None:
        value: str | None = self._headers.get(key)
        return value

    def get_request_properties(self) -> Headers:
        return self._headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status = code
        self._phrase = reason_phrase

    def get_response_status_code(self) -> int:
        return self._status

    def get_response_status_phrase(self) -> str | None:
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_headers[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_headers

    get_response_header = get_response_headers


class Metrics:
    """A model's own metrics, which go into the log."""

    def __init__(self, model: str) -> None:
        self._model = model

    def add_metric(
        self, name: str, value: Any, idx: Any = None, unit: str | None = None, dimensions: Any = None, **_: Any
    ) -> None:
        logger.info("model %s: metric %s is %s%s", self._model, name, value, f" {unit}" if unit else "")

    def add_counter(self, name: str, value: Any, idx: Any = None, dimensions: Any = None) -> None:
        self.add_metric(name, value, idx, "count", dimensions)

    def add_time(self, name: str, value: Any, idx: Any = None, unit: str = "ms", dimensions: Any = None) -> None:
        self.add_metric(name, value, idx, unit, dimensions)

    def add_size(self, name: str, value: Any, idx: Any = None, unit: str = "MB", dimensions: Any = None) -> None:
        self.add_metric(name, value, idx, unit, dimensions)

    def add_percent(self, name: str, value: Any, idx: Any = None, dimensions: Any = None) -> None:
        self.add_metric(name, value, idx, "percent", dimensions)

    def add_error(self, name: str, value: Any, dimensions: Any = None) -> None:
        self.add_metric(name, value, None, None, dimensions)


class Context:
    """One for as long as a model is loaded; what concerns requests is put in anew for every batch."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: dict[str, Any], batch_size: int, config: dict[str, Any]
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": None,
            "batch_size": batch_size,
            "server_name": _SERVER,
            "server_version": _SERVER_VERSION,
            "limit_max_image_pixels": True,
        }
        self.model_yaml_config = config
        self.metrics = Metrics(model_name)
        self.request_ids: dict[int, str] = {}
        self.request_processor: list[RequestProcessor] = []

    def begin(self, calls: Sequence[Call]) -> None:
        self.request_ids = {index: call.request_id for index, call in enumerate(calls)}
        self.request_processor = [RequestProcessor(_headers(call)) for call in calls]

    def get_request_id(self, idx: int = 0) -> str | None:
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> Headers:
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.request_processor[idx].add_response_property("content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get("content-type")

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, phrase)

    set_http_response_status = set_response_status

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    get_http_response_status = get_response_status

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.request_processor[idx].add_response_property(key, value)


def _headers(call: Call) -> Headers:
    said = Headers(call.headers)
    for name, value in (("Content-Type", call.content_type), ("Accept", call.accept)):
        if value and name not in said:
            said = Headers({**said, name: value})
    return said
