"""The management API as commands use it."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

# Registering loads the model, which may take as long as the model takes.
_TIMEOUT = 300.0


class ManagementClient:
    """Ends the command in one line if the server cannot be reached or answers with an error."""

    def __init__(self, address: str) -> None:
        # As the server reads it, which needs no scheme.
        self._address = address.rstrip("/") if "//" in address else f"http://{address.rstrip('/')}"
        # Never through a proxy: the server is on this host or named.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        return self.call("GET", path, parameters)

    def call(self, method: str, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        said = {name: value for name, value in (parameters or {}).items() if value is not None}
        query = f"?{urlencode(said)}" if said else ""
        try:
            request = urllib.request.Request(f"{self._address}{path}{query}", method=method)
            with self._opener.open(request, timeout=_TIMEOUT) as response:
                return msgspec.json.decode(response.read())
        except urllib.error.HTTPError as error:
            raise click.ClickException(_message(error)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise click.ClickException(f"no answer from {self._address}: {reason}") from error


def _message(error: urllib.error.HTTPError) -> str:
    with error:
        body = error.read()
    try:
        return str(msgspec.json.decode(body)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
