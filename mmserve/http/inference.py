"""The inference API: turns HTTP into Request objects and their answers back into HTTP. The hot path begins here.

POST /predictions/{model}      POST /models/{model}/invoke      POST /invocations      GET /ping
and, in sagemaker.py: POST /endpoints/{endpoint}/invocations      GET /execution-parameters
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aiohttp import hdrs, web

from mmserve.errors import MethodNotAllowed, NotFound, QueueFull, ServingError
from mmserve.http.answers import error_response, json_response, request_id_of, unexpected
from mmserve.http.asking import Asking, Target
from mmserve.http.connection import connection_of
from mmserve.http.model_headers import response_headers
from mmserve.http.plain import is_plain, plain_answer, plain_refusal, stays
from mmserve.http.sagemaker import EXECUTION_PARAMETERS, PREFIX, SageMakerApi
from mmserve.http.streaming import streamed_answer

Fallback = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]

_MODEL_PATH = re.compile(r"/(?:predictions/([^/]+)|models/([^/]+)/invoke|(invocations))")
# Parsed paths that are remembered; more than that in use, and all are parsed anew. Longer ones, in characters, are
# none that a client has reason to repeat.
_MAX_TARGETS = 100_000
_LONGEST_TARGET = 400

_READING = (hdrs.METH_GET, hdrs.METH_HEAD)


class InferenceApi:
    """`is_ready` says whether there is anything to be served.

    `fallback` answers what is not inference, where management shares the listener.
    """

    def __init__(
        self,
        asking: Asking,
        sagemaker: SageMakerApi,
        *,
        request_timeout: float,
        is_ready: Callable[[], bool],
        fallback: Fallback | None = None,
    ) -> None:
        self._asking = asking
        self._sagemaker = sagemaker
        self._timeout = request_timeout
        self._is_ready = is_ready
        self._fallback = fallback
        self._targets: dict[str, Target] = {}
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = request_id_of(request.headers)
        try:
            target = self._targets.get(request.raw_path) or self._target(request)
            if target is None or request.method != hdrs.METH_POST:
                connection_of(request).end_reading()
                return self._last_while_draining(await self._other(request, target, request_id))
            return await self._infer(request, target, request_id)
        except QueueFull as error:
            if not self.draining and stays(request):
                return plain_refusal(error, request_id)
            return self._last_while_draining(error_response(error, request_id))
        except ServingError as error:
            return self._last_while_draining(error_response(error, request_id))
        except Exception as error:  # the last resort of a request: anything else would end its connection
            return self._last_while_draining(unexpected(error, request_id))

    async def _infer(self, request: web.BaseRequest, target: Target, request_id: str) -> web.StreamResponse:
        answer = await self._asking.ask(request, target, request_id, self._timeout)
        if answer.stream is not None:
            response = streamed_answer(answer, answer.stream, request_id, patience=self._timeout)
            return self._last_while_draining(response)
        if not self.draining and is_plain(request, answer):
            return plain_answer(answer, request_id)
        response = web.Response(body=answer.body, status=answer.status, headers=response_headers(answer, request_id))
        return self._last_while_draining(response)

    def _last_while_draining(self, response: web.StreamResponse) -> web.StreamResponse:
        """Ends the connection with an answer that says so.

        One that is closed while it is idle may be closed just when its client sends the next request.
        """
        if self.draining:
            response.force_close()
        return response

    def _target(self, request: web.BaseRequest) -> Target | None:
        # Undecoded, since a name may have a slash in it, which is %2F there.
        match = _MODEL_PATH.fullmatch(request.rel_url.raw_path)
        if match is None:
            return None
        query = request.query
        name = unquote(match[1] or match[2] or "") or query.get("model_name")
        target = Target(name, query.get("method", ""), tuple(query.items()))
        if len(request.raw_path) <= _LONGEST_TARGET:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[request.raw_path] = target
        return target

    async def _other(self, request: web.BaseRequest, target: Target | None, request_id: str) -> web.StreamResponse:
        """Answers what is no request to a model."""
        if target is not None:
            raise MethodNotAllowed(request.method, request.path, [hdrs.METH_POST])
        if request.path.startswith(PREFIX):
            return await self._sagemaker.respond(request, request_id)
        if request.path == EXECUTION_PARAMETERS and request.method in _READING:
            return self._sagemaker.execution_parameters(request_id)
        if request.path == "/ping":
            if request.method not in _READING:
                raise MethodNotAllowed(request.method, request.path, _READING)
            if self.draining or not self._is_ready():
                return json_response({"status": "Unhealthy"}, status=503, request_id=request_id)
            return json_response({"status": "Healthy"}, request_id=request_id)
        if self._fallback is None:
            raise NotFound(f"No such route: {request.method} {request.path}")
        return await self._fallback(request, request_id)
