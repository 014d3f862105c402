"""Registers and unregisters models as a client does."""

from __future__ import annotations

from typing import Any

import httpx

from tests.servers import Server


def register(server: Server, **parameters: Any) -> httpx.Response:
    return server.management.post("/models", params=parameters)


def unregister(server: Server, name: str) -> None:
    assert server.management.delete(f"/models/{name}").status_code == 200
