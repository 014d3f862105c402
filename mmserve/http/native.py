"""The dialect of most paths: a model's answer as it is, and errors as `{"code", "type", "message"}`."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from mmserve.errors import ModelFailed, QueueFull
from mmserve.http.answers import error_response
from mmserve.http.asking import target_model
from mmserve.http.dialect import Outcome
from mmserve.http.model_headers import response_headers
from mmserve.http.plain import written_answer, written_refusal
from mmserve.http.streaming import streamed_answer
from mmserve.scheduling.request import Answer


class Native:
    """`timeout` in seconds."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def check(self, headers: Mapping[str, str]) -> None:
        """There is nothing that must not be said."""

    def addressed(self, headers: Mapping[str, str]) -> str | None:
        return target_model(headers)

    def plain(self, headers: Mapping[str, str], outcome: Outcome, request_id: str) -> bytes | None:
        if isinstance(outcome, Answer):
            return written_answer(outcome, request_id)
        # The one error that may come as often as answers do.
        return written_refusal(outcome, request_id) if isinstance(outcome, QueueFull) else None

    def response(self, headers: Mapping[str, str], outcome: Outcome, request_id: str) -> web.StreamResponse:
        if isinstance(outcome, Exception):
            return error_response(outcome, request_id)
        try:
            if outcome.stream is not None:
                return streamed_answer(outcome, outcome.stream, request_id, patience=self.timeout)
            headers_of_answer = response_headers(outcome, request_id)
        except ModelFailed as error:
            return error_response(error, request_id)
        return web.Response(body=outcome.body, status=outcome.status, headers=headers_of_answer)
