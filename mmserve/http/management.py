"""The management API, with the parameters and JSON shapes of Multi Model Server and DJL Serving.

GET /models     POST /models     GET, PUT, DELETE /models/{model}     POST /models/{model}/refresh
GET /ping     GET /status
and, for those who watch the server: GET /events     GET /metrics
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Awaitable, Callable, Mapping, Set
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import hdrs, web

from mmserve.errors import BadRequest, MethodNotAllowed, NotFound
from mmserve.freshness import Freshness
from mmserve.http.answers import error_response, json_response, request_id_of
from mmserve.http.body import BodyReader
from mmserve.http.observation import ObservationApi
from mmserve.models.model import Model
from mmserve.models.settings import ModelSettings, SettingError
from mmserve.operations import Operations
from mmserve.scheduling.queue import ModelQueue
from mmserve.supervision.memory import MIB
from mmserve.supervision.worker import Worker

_LARGEST_PAGE = 100
_MODEL_PATH = re.compile(r"/models/([^/]+)(/refresh)?")
# What a registration may say beside settings; the second line is for other servers, whose clients say it always.
_OF_REGISTRATIONS = frozenset({"url", "model_name", "handler", "synchronous"})
_OF_OTHERS = frozenset({"engine", "device", "runtime", "preload_model"})
# A longer number is none of a page.
_NUMBER = re.compile(r"[0-9]{1,9}")

Parameters = Mapping[str, str]
Result = tuple[int, Any]
Action = Callable[[Parameters], Awaitable[Result]]


class ManagementApi:
    """`server_status` says how the server as a whole is doing."""

    def __init__(
        self,
        operations: Operations,
        freshness: Freshness,
        bodies: BodyReader,
        server_status: Callable[[], Awaitable[Mapping[str, Any]]],
        observation: ObservationApi,
    ) -> None:
        self._operations = operations
        self._freshness = freshness
        self._bodies = bodies
        self._server_status = server_status
        self._observation = observation
        self.draining = False
        self._actions: dict[str, dict[str, Action]] = {
            "/models": {hdrs.METH_GET: self._list, hdrs.METH_POST: self._register},
            "/status": {hdrs.METH_GET: self._status},
            "/ping": {hdrs.METH_GET: self._ping},
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = request_id_of(request.headers)
        try:
            return await self.respond(request, request_id)
        except Exception as error:  # the last resort of a request: anything else would end its connection
            return error_response(error, request_id)

    async def respond(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """The same, but raises ServingError."""
        body = await self._bodies.read(request)
        self._bodies.release(body)
        if request.path in self._observation.paths:
            return await self._observation.respond(request, _parameters(request, bytes(body)), request_id)
        action = self._action(request.method, request.rel_url.raw_path)
        code, content = await action(_parameters(request, bytes(body)))
        return json_response(content, status=code, request_id=request_id)

    def _action(self, method: str, path: str) -> Action:
        match = _MODEL_PATH.fullmatch(path)
        actions = self._actions.get(path) if match is None else self._model_actions(unquote(match[1]), match[2])
        if actions is None:
            raise NotFound(f"No such route: {method} {path}")
        action = actions.get(hdrs.METH_GET if method == hdrs.METH_HEAD else method)
        if action is None:
            raise MethodNotAllowed(method, path, actions)
        return action

    def _model_actions(self, name: str, what: str | None) -> dict[str, Action]:
        if what is not None:
            return {hdrs.METH_POST: partial(self._refresh, name)}
        return {
            hdrs.METH_GET: partial(self._describe, name),
            hdrs.METH_PUT: partial(self._scale, name),
            hdrs.METH_DELETE: partial(self._unregister, name),
        }

    async def _ping(self, _: Parameters) -> Result:
        return (503, {"status": "Unhealthy"}) if self.draining else (200, {"status": "Healthy"})

    async def _status(self, _: Parameters) -> Result:
        return 200, await self._server_status()

    async def _describe(self, name: str, _: Parameters) -> Result:
        return 200, _description(await self._operations.describe(name))

    async def _unregister(self, name: str, _: Parameters) -> Result:
        await self._operations.unregister(name)
        return 200, {"status": f'Model "{name}" unregistered'}

    async def _register(self, parameters: Parameters) -> Result:
        url = parameters.get("url")
        if not url:
            raise BadRequest("Parameter url is required.")
        asked = _settings(parameters, _OF_REGISTRATIONS | _OF_OTHERS)
        wait = _flag(parameters, "synchronous", default=True)
        # Said to have no worker now, it is loaded by its first request.
        load = asked.min_workers != 0
        name, handler = parameters.get("model_name"), parameters.get("handler", "")
        model = await self._operations.register(url, name, asked, load=load, wait=wait, handler=handler)
        if load and not wait:
            return 202, {"status": f'Model "{model.name}" registration scheduled.'}
        return 200, {"status": f'Model "{model.name}" registered.'}

    async def _scale(self, name: str, parameters: Parameters) -> Result:
        wait = _flag(parameters, "synchronous", default=True)
        asked = _settings(parameters, frozenset({"synchronous"}) | _OF_OTHERS)
        await self._operations.scale(name, asked, wait=wait)
        return (200, {"status": "Workers scaled"}) if wait else (202, {"status": "Processing worker updates..."})

    async def _refresh(self, name: str, _: Parameters) -> Result:
        newer = await self._freshness.refresh(name)
        return 200, {"status": f'Model "{name}" {"replaced" if newer else "is up to date"}', "newer": newer}

    async def _list(self, parameters: Parameters) -> Result:
        limit = _number(parameters, "limit", _LARGEST_PAGE)
        start = _number(parameters, "next_page_token", 0)
        if not 1 <= limit <= _LARGEST_PAGE:
            limit = _LARGEST_PAGE
        models = await self._operations.list()
        page: dict[str, Any] = {
            "models": [
                {"modelName": model.name, "modelUrl": model.url, "status": model.status}
                for model in models[start : start + limit]
            ]
        }
        if start + limit < len(models):
            page["nextPageToken"] = str(start + limit)
        return 200, page


def _parameters(request: web.BaseRequest, body: bytes) -> Parameters:
    """What was said in the query string, in a JSON body, or in both; the query wins."""
    said: dict[str, str] = {}
    if body:
        try:
            content = msgspec.json.decode(body, type=dict[str, str | int | float | bool | None])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"The body is not a JSON object of parameters: {error}") from error
        said = {name: _text(value) for name, value in content.items() if value is not None}
    said.update(request.query)
    return said


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flag(parameters: Parameters, name: str, *, default: bool) -> bool:
    said = parameters.get(name, str(default)).lower()
    if said not in ("true", "false"):
        raise BadRequest(f"Parameter {name} is true or false, not {said!r}.")
    return said == "true"


def _number(parameters: Parameters, name: str, default: int) -> int:
    said = parameters.get(name, str(default))
    if _NUMBER.fullmatch(said) is None:
        raise BadRequest(f"Parameter {name} is a whole number of 0 or more, not {said!r}.")
    return int(said)


def _settings(parameters: Parameters, besides: Set[str]) -> ModelSettings:
    """The settings among the parameters, where only those `besides` may be something else."""
    unknown = [name for name in ModelSettings.unknown(parameters) if name not in besides]
    if unknown:
        raise BadRequest(f"Unknown parameter: {', '.join(unknown)}.")
    try:
        return ModelSettings.from_strings(parameters)
    except SettingError as error:
        raise BadRequest(str(error)) from error


def _description(queue: ModelQueue) -> dict[str, Any]:
    """Multi Model Server's object, with what DJL Serving says more and the reason of a failure."""
    model, pool = queue.model, queue.pool
    settings = pool.settings
    described: dict[str, Any] = {
        "modelName": model.name,
        "modelUrl": model.source.url,
        "status": pool.status,
        "minWorkers": settings.min_workers,
        "maxWorkers": settings.max_workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": round(settings.max_batch_delay * 1000),
        "maxIdleSeconds": settings.max_idle_time,
        "queueSize": settings.job_queue_size,
        "weight": settings.weight,
        "pinned": settings.pinned,
        "maxMemoryMb": None if settings.max_memory is None else round(settings.max_memory / MIB, 3),
        "requiredMemoryMb": round(settings.required_memory / MIB, 3),
        "predictTimeout": settings.predict_timeout,
        "modelLoadingTimeout": settings.model_loading_timeout,
        "handler": model.said_handler or None,
        "settingsFrom": {_camel_case(name): source for name, source in pool.sources().items()},
        "requestInQueue": len(queue.waiting),
        "loadedAtStartup": False,
        "environment": _environment(model),
        "workers": [_worker(worker) for worker in sorted(pool.workers, key=lambda worker: worker.id)],
    }
    if pool.failure is not None:
        described["failure"] = {
            "type": pool.failure.error_type,
            "message": pool.failure.message,
            "traceback": pool.failure.traceback,
            "attempts": pool.failure.attempts,
        }
    return described


def _environment(model: Model) -> str | None:
    """The key of the one that it runs in, unless that is the server's own or not known yet."""
    needed = model.content.requirements if model.content is not None else None
    return None if needed is None else needed.key


# Where the shape that clients know has another name for it than camel case would give.
_SHOWN_AS = {
    "max_idle_time": "maxIdleSeconds",
    "job_queue_size": "queueSize",
    "max_memory": "maxMemoryMb",
    "required_memory": "requiredMemoryMb",
}


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return _SHOWN_AS.get(name, first + "".join(map(str.capitalize, others)))


def _worker(worker: Worker) -> dict[str, Any]:
    started = datetime.datetime.fromtimestamp(worker.started_at, datetime.UTC)
    return {
        "id": worker.id,
        "pid": worker.pid,
        "startTime": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "status": worker.state.value,
        "memoryUsage": worker.memory.held,
        "served": worker.answered,
    }
