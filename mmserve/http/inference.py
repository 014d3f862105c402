"""The inference API: turns HTTP into Request objects and their answers back into HTTP. The hot path begins here.

POST /predictions/{model}      POST /models/{model}/invoke      POST /invocations      GET /ping
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import hdrs, web

from mmserve.errors import BadRequest, DeadlineExceeded, MethodNotAllowed, NotFound, QueueFull, ServingError
from mmserve.http.answers import error_response, json_response, request_id_of, unexpected
from mmserve.http.body import BodyReader
from mmserve.http.connection import connection_of
from mmserve.http.model_headers import response_headers
from mmserve.http.plain import is_plain, plain_answer, plain_refusal, stays
from mmserve.models.archive import without_suffix
from mmserve.models.model import Model
from mmserve.models.registry import Registry
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import USUAL_PRIORITY, Answer, Request

Fallback = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]

_MODEL_PATH = re.compile(r"/(?:predictions/([^/]+)|models/([^/]+)/invoke|(invocations))")
_TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
# Parsed paths that are remembered; more than that in use, and all are parsed anew. Longer ones, in characters, are
# none that a client has reason to repeat.
_MAX_TARGETS = 100_000
_LONGEST_TARGET = 400

_PRIORITY = "x-priority"
_WHOLE = re.compile(r"-?[0-9]{1,9}")
# What is counted, and never sent, for a client that did not wait for its answer; nginx's number.
_CLIENT_GONE = 499

_READING = (hdrs.METH_GET, hdrs.METH_HEAD)


class Target(NamedTuple):
    """What a path with its query asks for. No model where the headers have to say which."""

    model: str | None
    method: str


class InferenceApi:
    """`fallback` answers what is not inference, where management shares the listener."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        bodies: BodyReader,
        *,
        request_timeout: float,
        fallback: Fallback | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._dispatcher = dispatcher
        self._bodies = bodies
        self._timeout = request_timeout
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
        body: bytes | bytearray | None = self._bodies.arrived(request)
        if body is None:
            body = await self._bodies.read(request)
        try:
            now = time.monotonic()
            model = self._registry.get(target.model or "") or await self._find(request, target)
            headers = request.headers
            waiting = Request(
                body,
                headers.get(hdrs.CONTENT_TYPE, ""),
                headers.get(hdrs.ACCEPT, ""),
                target.method,
                headers,
                now + self._timeout,
                self._loop.create_future(),
                _priority(headers[_PRIORITY]) if _PRIORITY in headers else USUAL_PRIORITY,
            )
            answer = await self._ask(self._dispatcher.queue(model), waiting, now)
        finally:
            self._bodies.release(body)
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

    async def _ask(self, queue: ModelQueue, waiting: Request, arrived: float) -> Answer:
        status = _CLIENT_GONE
        try:
            self._dispatcher.submit(queue, waiting)
            answer = await waiting.future
            status = answer.status
        except ServingError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            self._dispatcher.withdraw(queue, waiting)
            raise
        finally:
            queue.pool.stats.answered(status, time.monotonic() - arrived)
        return answer

    def _target(self, request: web.BaseRequest) -> Target | None:
        # Undecoded, since a name may have a slash in it, which is %2F there.
        match = _MODEL_PATH.fullmatch(request.rel_url.raw_path)
        if match is None:
            return None
        query = request.query
        target = Target(unquote(match[1] or match[2] or "") or query.get("model_name"), query.get("method", ""))
        if len(request.raw_path) <= _LONGEST_TARGET:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[request.raw_path] = target
        return target

    async def _find(self, request: web.BaseRequest, target: Target) -> Model:
        """The model of a request if it has not been asked for before, or is not named by the path."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._registry.find(target.model or await self._addressed(request))
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed while the model store was read.") from None

    async def _addressed(self, request: web.BaseRequest) -> str:
        """The model of a request whose path names none."""
        said = request.headers.get(_TARGET_MODEL)
        if said is not None:
            key = said.lstrip("/")
            return without_suffix(key) or key
        only = await self._registry.only()
        if only is None:
            raise BadRequest(f"Say which model: by the header {_TARGET_MODEL} or by ?model_name=.")
        return only

    async def _other(self, request: web.BaseRequest, target: Target | None, request_id: str) -> web.StreamResponse:
        """Answers what is no request to a model."""
        if target is not None:
            raise MethodNotAllowed(request.method, request.path, [hdrs.METH_POST])
        if request.path == "/ping":
            if request.method not in _READING:
                raise MethodNotAllowed(request.method, request.path, _READING)
            if self.draining:
                return json_response({"status": "Unhealthy"}, status=503, request_id=request_id)
            return json_response({"status": "Healthy"}, request_id=request_id)
        if self._fallback is None:
            raise NotFound(f"No such route: {request.method} {request.path}")
        return await self._fallback(request, request_id)


def _priority(said: str) -> int:
    if _WHOLE.fullmatch(said) is None:
        raise BadRequest(f"Header {_PRIORITY} is a whole number, lower goes first, not {said!r}.")
    return int(said)
