"""Looks at the workers of models again and again, on one connection to the management API."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec

from benchmarks.servers import TIMEOUT, Address, ServerError

_PAUSE = 0.01
# What a worker is called that can answer, or does.
_SERVING = ("READY", "BUSY")


class Watch:
    def __init__(self, management: Address) -> None:
        self._connection = http.client.HTTPConnection(management.host, management.port, timeout=TIMEOUT)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def describe(self, model: str) -> dict[str, Any]:
        self._connection.request("GET", f"/models/{model}")
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ServerError(f"GET /models/{model}: {response.status} {content.decode(errors='replace')}")
        described: dict[str, Any] = msgspec.json.decode(content)
        return described

    def wait_until_served(self, models: Sequence[str], workers: int) -> None:
        """Returns when each of these has exactly so many workers, and all of them can answer."""
        end = time.monotonic() + TIMEOUT
        for model in models:
            while [worker["status"] in _SERVING for worker in self.describe(model)["workers"]] != [True] * workers:
                if time.monotonic() > end:
                    raise ServerError(f"{model} does not have {workers} workers that can answer")
                time.sleep(_PAUSE)


def serving(described: dict[str, Any]) -> list[dict[str, Any]]:
    """The workers of a described model that can answer, or do."""
    return [worker for worker in described["workers"] if worker["status"] in _SERVING]
