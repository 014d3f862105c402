"""What can be done with models, whoever asks: register, describe, scale, unregister, list. Knows no HTTP."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

from mmserve.errors import BadRequest, Conflict, ModelNotFound, ServingError
from mmserve.models.archive import name_of, valid_name
from mmserve.models.model import Model
from mmserve.models.registry import Registry
from mmserve.models.settings import ModelSettings
from mmserve.models.store import resolve
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.supervision.pool import Pool
from mmserve.supervision.supervisor import Supervisor
from mmserve.supervision.worker import WorkerState


class Listed(NamedTuple):
    name: str
    source: Path
    status: str


class Operations:
    def __init__(self, registry: Registry, dispatcher: Dispatcher, supervisor: Supervisor) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        # What has to be finished even if the caller who asked for it goes away.
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(self, url: str, name: str | None, asked: ModelSettings, *, load: bool, wait: bool) -> Model:
        """Adds a model, and loads it unless told not to. One that was waited for and did not load is not registered."""
        source, name = await self._locate(url, name)
        known = self._registry.get(name)
        if known is not None and (known.registered or self._dispatcher.queue(known).pool.workers):
            raise Conflict(f"Model {name} is already registered.")
        if known is not None:
            self._dispatcher.forget(known)
        model = Model(name, source, registered=True, registered_with=asked)
        self._registry.add(model)
        if not load:
            return model
        pool = self._dispatcher.queue(model).pool
        self._supervisor.wake(pool)
        if wait:
            try:
                await self._reach(pool)
            except ServingError:
                self._registry.discard(model)
                await self._end(model)
                raise
        return model

    async def scale(self, name: str, asked: ModelSettings, *, wait: bool) -> Model:
        """Changes how many workers a model has, and whatever else is said."""
        model = await self._registry.find(name)
        model.scaled_to = asked.over(model.scaled_to)
        pool = self._dispatcher.queue(model).pool
        self._supervisor.rescale(pool, to_minimum=asked.min_workers is not None)
        if wait:
            await self._reach(pool)
        return model

    async def unregister(self, name: str) -> None:
        """Takes a model away. What was accepted for it is answered first."""
        model = await self._registry.find(name)
        self._registry.remove(model)
        await self._end(model)

    async def describe(self, name: str) -> ModelQueue:
        return self._dispatcher.queue(await self._registry.find(name))

    async def list(self) -> list[Listed]:
        sources = await self._registry.sources()
        return [Listed(name, source, self._status(name)) for name, source in sources.items()]

    def _status(self, name: str) -> str:
        model = self._registry.get(name)
        return status(self._dispatcher.queue(model).pool) if model is not None else "SLEEPING"

    async def _locate(self, url: str, name: str | None) -> tuple[Path, str]:
        store = self._registry.store
        source = resolve(url, Path.cwd() if store is None else store.directory)
        if name is None:
            name = name_of(source.name) or source.name
        if not valid_name(name):
            raise BadRequest(f"Not a model name: {name!r}: letters, digits, '.', '_' and '-', at most 200.")
        is_archive = name_of(source.name) is not None
        # os.path's, since those of a Path raise what the system says to a name that is too long.
        exists = await asyncio.to_thread(lambda: os.path.isdir(source) or (is_archive and os.path.isfile(source)))
        if not exists:
            raise ModelNotFound(url)
        return source, name

    async def _reach(self, pool: Pool) -> None:
        """Waits until as many workers as desired are ready; raises what keeps them from it."""
        failure = pool.failure
        while pool.ready != pool.desired or len(pool.workers) != pool.desired:
            if pool.failure is not None and pool.failure is not failure:
                raise pool.failure.error()
            if self._registry.get(pool.model.name) is not pool.model:
                raise Conflict(f"Model {pool.model.name} was unregistered meanwhile.")
            await pool.changed.wait()

    async def _end(self, model: Model) -> None:
        task = asyncio.get_running_loop().create_task(self._finish(model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _finish(self, model: Model) -> None:
        queue = self._dispatcher.queue(model)
        await self._dispatcher.settle(queue)
        await self._supervisor.retire(queue.pool)
        self._dispatcher.forget(model)


def status(pool: Pool) -> str:
    """READY, PENDING while the first worker comes up, FAILED with the reason in describe, or SLEEPING."""
    if pool.ready:
        return "READY"
    if any(worker.state in (WorkerState.STARTING, WorkerState.LOADING) for worker in pool.workers):
        return "PENDING"
    return "FAILED" if pool.failure is not None else "SLEEPING"
