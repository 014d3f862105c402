"""The inference API as aiohttp's handler serves it.

POST /predictions/{model}      POST /models/{model}/invoke      POST /invocations      GET /ping
and, in sagemaker.py: POST /endpoints/{endpoint}/invocations      GET /execution-parameters

A plain request to a model does not come here: it goes through the fast lane (lane.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from mmserve.errors import MethodNotAllowed, NotFound, ServingError
from mmserve.http.answers import error_response, json_response, request_id_of
from mmserve.http.asking import Asking
from mmserve.http.connection import connection_of
from mmserve.http.dialect import Outcome
from mmserve.http.plain import PlainResponse, stays
from mmserve.http.sagemaker import EXECUTION_PARAMETERS, PREFIX, SageMaker
from mmserve.http.targets import Target, Targets

Fallback = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]

_READING = (hdrs.METH_GET, hdrs.METH_HEAD)


class InferenceApi:
    """`is_ready` says whether there is anything to be served.

    `fallback` answers what is not inference, where management shares the listener.
    """

    def __init__(
        self,
        asking: Asking,
        targets: Targets,
        sagemaker: SageMaker,
        *,
        is_ready: Callable[[], bool],
        fallback: Fallback | None = None,
    ) -> None:
        self._asking = asking
        self._targets = targets
        self._sagemaker = sagemaker
        self._is_ready = is_ready
        self._fallback = fallback
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = request_id_of(request.headers)
        target = self._targets.of(request)
        if target is not None and request.method == hdrs.METH_POST:
            response = await self._infer(request, target, request_id)
        else:
            connection_of(request).end_reading()
            try:
                response = await self._other(request, target, request_id)
            except Exception as error:  # the last resort of a request: anything else would end its connection
                response = error_response(error, request_id)
        if self.draining:
            # A connection that is closed while it is idle may be closed just when its client sends the next request.
            response.force_close()
        return response

    async def _infer(self, request: web.BaseRequest, target: Target, request_id: str) -> web.StreamResponse:
        dialect, headers = target.dialect, request.headers
        outcome: Outcome
        try:
            outcome = await self._asking.ask(request, target, request_id)
        except ServingError as error:
            # Its frames, this one among them, would hold on to the body until the next collection of garbage.
            outcome = error.with_traceback(None)
        except Exception as error:  # the last resort of a request: anything else would end its connection
            outcome = error
        if not self.draining and stays(request):
            written = dialect.plain(headers, outcome, request_id)
            if written is not None:
                return PlainResponse(written)
        return dialect.response(headers, outcome, request_id)

    async def _other(self, request: web.BaseRequest, target: Target | None, request_id: str) -> web.StreamResponse:
        """Answers what is no request to a model. Raises ServingError."""
        path, method = request.path, request.method
        if path.startswith(PREFIX):
            return self._sagemaker.refused(method, request.rel_url.raw_path, request_id)
        if target is not None:
            raise MethodNotAllowed(method, path, [hdrs.METH_POST])
        if path == EXECUTION_PARAMETERS and method in _READING:
            return self._sagemaker.execution_parameters(request_id)
        if path == "/ping":
            if method not in _READING:
                raise MethodNotAllowed(method, path, _READING)
            if self.draining or not self._is_ready():
                return json_response({"status": "Unhealthy"}, status=503, request_id=request_id)
            return json_response({"status": "Healthy"}, request_id=request_id)
        if self._fallback is None:
            raise NotFound(f"No such route: {method} {path}")
        return await self._fallback(request, request_id)
