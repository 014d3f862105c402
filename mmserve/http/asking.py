"""Has a model answer what an HTTP request asks it: finds the model, queues a Request for it, waits for the Answer.

What every API dialect has in common. It is on the hot path: whatever a dialect says beside it stays out of here.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import NamedTuple

from aiohttp import hdrs, web

from mmserve.errors import BadRequest, NotLoadedInTime, ServingError
from mmserve.http.body import BodyReader
from mmserve.models.archive import without_suffix
from mmserve.models.model import Model
from mmserve.models.registry import Registry
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import USUAL_PRIORITY, Answer, Query, Request
from mmserve.scheduling.streams import CLIENT_GONE

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"

_PRIORITY = "x-priority"
_WHOLE = re.compile(r"-?[0-9]{1,9}")


class Target(NamedTuple):
    """What a path with its query asks for. No model where the headers have to say which."""

    model: str | None
    method: str
    query: Query = ()


class Asking:
    def __init__(self, registry: Registry, dispatcher: Dispatcher, bodies: BodyReader) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._dispatcher = dispatcher
        self._bodies = bodies

    async def ask(self, request: web.BaseRequest, target: Target, request_id: str, timeout: float) -> Answer:
        """What the model answers within so many seconds. Raises ServingError."""
        body: bytes | bytearray | None = self._bodies.arrived(request)
        if body is None:
            body = await self._bodies.read(request)
        try:
            now = time.monotonic()
            model = self._registry.get(target.model or "") or await self._find(request, target, timeout)
            headers = request.headers
            waiting = Request(
                body,
                headers.get(hdrs.CONTENT_TYPE, ""),
                headers.get(hdrs.ACCEPT, ""),
                target.method,
                headers,
                now + timeout,
                self._loop.create_future(),
                _priority(headers[_PRIORITY]) if _PRIORITY in headers else USUAL_PRIORITY,
                target.query,
                request_id,
            )
            return await self._answer(self._dispatcher.queue(model), waiting, now)
        finally:
            self._bodies.release(body)

    async def _answer(self, queue: ModelQueue, waiting: Request, arrived: float) -> Answer:
        status = CLIENT_GONE
        try:
            self._dispatcher.submit(queue, waiting)
            answer = await waiting.future
            status = answer.status
            if answer.stream is not None:
                # It counts when it is over, by how it ends.
                answer.stream.begin(status, partial(_count, queue, arrived))
                status = 0
        except ServingError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            self._dispatcher.withdraw(queue, waiting)
            raise
        finally:
            if status:
                _count(queue, arrived, status)
        return answer

    async def _find(self, request: web.BaseRequest, target: Target, timeout: float) -> Model:
        """The model of a request if it has not been asked for before, or is not named by the path."""
        try:
            async with asyncio.timeout(timeout):
                return await self._registry.find(target.model or await self._addressed(request))
        except TimeoutError:
            raise NotLoadedInTime("The deadline passed while the model store was read.") from None

    async def _addressed(self, request: web.BaseRequest) -> str:
        """The model of a request whose path names none."""
        said = request.headers.get(TARGET_MODEL)
        if said is not None:
            key = said.lstrip("/")
            return without_suffix(key) or key
        only = await self._registry.only()
        if only is None:
            raise BadRequest(f"Say which model: by the header {TARGET_MODEL} or by ?model_name=.")
        return only


def _count(queue: ModelQueue, arrived: float, status: int) -> None:
    queue.pool.stats.answered(status, time.monotonic() - arrived)


def _priority(said: str) -> int:
    if _WHOLE.fullmatch(said) is None:
        raise BadRequest(f"Header {_PRIORITY} is a whole number, lower goes first, not {said!r}.")
    return int(said)
