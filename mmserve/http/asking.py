"""Has a model answer what an HTTP request asks it: finds the model, queues a Request for it, waits for the Answer.

What every dialect has in common. It is on the hot path: whatever a dialect says beside it stays out of here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import partial

from aiohttp import hdrs, web
from multidict import istr

from mmserve.errors import BadRequest, NotLoadedInTime, ServingError
from mmserve.http.body import BodyReader
from mmserve.http.targets import Target
from mmserve.models.archive import without_suffix
from mmserve.models.model import Model
from mmserve.models.registry import Registry
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import USUAL_PRIORITY, Answer, Request
from mmserve.scheduling.streams import CLIENT_GONE

TARGET_MODEL = istr("X-Amzn-SageMaker-Target-Model")

_PRIORITY = istr("x-priority")
_WHOLE = re.compile(r"-?[0-9]{1,9}")


class Asking:
    def __init__(self, registry: Registry, dispatcher: Dispatcher, bodies: BodyReader) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._dispatcher = dispatcher
        self._bodies = bodies

    async def ask(self, request: web.BaseRequest, target: Target, request_id: str) -> Answer:
        """What the model answers in the time that the dialect allows. Raises ServingError."""
        headers = request.headers
        target.dialect.check(headers)
        body: bytes | bytearray | None = self._bodies.arrived(request)
        if body is None:
            body = await self._bodies.read(request)
        try:
            now = time.monotonic()
            name = target.model or target.dialect.addressed(headers)
            model = self._registry.get(name or "") or await self._find(name, target.dialect.timeout)
            future: asyncio.Future[Answer] = self._loop.create_future()
            waiting = Request(
                body,
                headers.get(hdrs.CONTENT_TYPE, ""),
                headers.get(hdrs.ACCEPT, ""),
                target.method,
                headers,
                now + target.dialect.timeout,
                future,
                priority_of(headers),
                target.query,
                request_id,
            )
            return await self._answer(self._dispatcher.queue(model), waiting, future, now)
        finally:
            self._bodies.release(body)

    async def _answer(
        self, queue: ModelQueue, waiting: Request, future: asyncio.Future[Answer], arrived: float
    ) -> Answer:
        status = CLIENT_GONE
        try:
            self._dispatcher.submit(queue, waiting)
            answer = await future
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
            _let_go(future)
            raise
        finally:
            if status:
                _count(queue, arrived, status)
        return answer

    async def _find(self, name: str | None, timeout: float) -> Model:
        """A model that has not been asked for before, or is not named at all."""
        try:
            async with asyncio.timeout(timeout):
                return await self._registry.find(await self._only() if name is None else name)
        except TimeoutError:
            raise NotLoadedInTime("The deadline passed while the model store was read.") from None

    async def _only(self) -> str:
        only = await self._registry.only()
        if only is None:
            raise BadRequest(f"Say which model: by the header {TARGET_MODEL} or by ?model_name=.")
        return only


def _count(queue: ModelQueue, arrived: float, status: int) -> None:
    queue.pool.stats.answered(status, time.monotonic() - arrived)


def _let_go(future: asyncio.Future[Answer]) -> None:
    """Its caller has gone, and takes nothing of what it may have been answered in the same moment."""
    if future.done() and not future.cancelled() and future.exception() is None:
        stream = future.result().stream
        if stream is not None:
            stream.abandon()


def target_model(headers: Mapping[str, str]) -> str | None:
    """The name of the model that SageMaker's header asks for."""
    said = headers.get(TARGET_MODEL)
    if said is None:
        return None
    key = said.lstrip("/")
    return without_suffix(key) or key


def priority_of(headers: Mapping[str, str]) -> int:
    """Raises BadRequest for one that is none."""
    said = headers.get(_PRIORITY)
    if said is None:
        return USUAL_PRIORITY
    if _WHOLE.fullmatch(said) is None:
        raise BadRequest(f"Header {_PRIORITY} is a whole number, lower goes first, not {said!r}.")
    return int(said)
