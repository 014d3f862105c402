"""How one kind of client speaks: which model its headers name, and how it is told the answer or the error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from mmserve.scheduling.request import Answer

Outcome = Answer | Exception


class Dialect(Protocol):
    # Seconds in which its clients want an answer.
    timeout: float

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises the ServingError that keeps this from being a request to a model."""

    def addressed(self, headers: Mapping[str, str]) -> str | None:
        """The name of the model that the headers ask for."""

    def plain(self, headers: Mapping[str, str], outcome: Outcome, request_id: str) -> bytes | None:
        """All of what answers a request with these headers, for a connection that stays.

        None for what is rare, large or comes in pieces: `response` says that.
        """

    def response(self, headers: Mapping[str, str], outcome: Outcome, request_id: str) -> web.StreamResponse:
        """What answers a request with these headers, whatever came of it."""
