"""What can be done with models, whoever asks: register, describe, scale, unregister, list. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
import posixpath
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from mmserve.errors import (
    BadRequest,
    Conflict,
    InsufficientMemory,
    ModelNotFound,
    NoMemory,
    ServingError,
    StateNotSaved,
)
from mmserve.models.archive import NAME_RULE, name_of, valid_name
from mmserve.models.model import Model
from mmserve.models.registrations import Record, Registrations
from mmserve.models.registry import Registry
from mmserve.models.settings import ModelSettings
from mmserve.models.source import Source
from mmserve.observability.events import EventLog
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.queue import ModelQueue
from mmserve.supervision.failure import LoadFailure
from mmserve.supervision.pool import Pool
from mmserve.supervision.supervisor import Supervisor

logger = logging.getLogger("mmserve")

_T = TypeVar("_T")


class Listed(NamedTuple):
    name: str
    url: str
    status: str


class Operations:
    """What was asked is on the disk before it is said to be done. `drain_timeout` in seconds."""

    def __init__(
        self,
        registry: Registry,
        registrations: Registrations,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        log: EventLog,
        *,
        drain_timeout: float,
    ) -> None:
        self._registry = registry
        self._registrations = registrations
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._log = log
        self._drain_timeout = drain_timeout
        # One change at a time, so that what is on the disk and what holds are the same.
        self._changing = asyncio.Lock()
        # What has to be finished even if the caller who asked for it goes away.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def restore(self) -> None:
        """Takes up again what was registered and scaled before the last end, whatever that was."""
        restored = []
        for record in await asyncio.to_thread(self._registrations.load):
            if record.withdrawn:
                self._registry.withdraw(record.name)
            elif (model := await self._restored(record)) is not None:
                self._registry.add(model)
                restored.append(model)
        if restored:
            self._log.add("registrations_restored", level=logging.INFO, models=len(restored))
        self._keep(self._bring_back(restored))

    async def _bring_back(self, models: list[Model]) -> None:
        """Those, and then the models that are loaded from the start on."""
        await self._supervisor.restore([self._dispatcher.queue(model).pool for model in models])
        async for model in self._registry.kept():
            await self._supervisor.restore([self._dispatcher.queue(model).pool])

    async def register(
        self, url: str, name: str | None, asked: ModelSettings, *, load: bool, wait: bool, handler: str = ""
    ) -> Model:
        """Adds a model, and loads it unless told not to. One that was waited for and did not load is not registered."""
        source, name = await self._locate(url, name)
        model = Model(name, source, registered=True, registered_with=asked, handler=handler)
        pool, scaled = await self.finish_anyway(self._register(model, load=load))
        if wait and pool is not None:
            try:
                await self._reach(pool, None)
            except ServingError:
                await self.finish_anyway(self._take_back(model, scaled))
                raise
        return model

    async def _register(self, model: Model, *, load: bool) -> tuple[Pool | None, Model | None]:
        """Gives what it is loaded into, and the store's model by this name if that was scaled."""
        async with self._changing:
            known = self._registry.get(model.name)
            if known is not None and (known.registered or self._in_use(known)):
                raise Conflict(f"Model {model.name} is already registered.")
            await self._save(model)
            # While that was written, the store's model may have been asked for.
            known = self._registry.get(model.name)
            self._registry.add(model)
            if known is not None:
                self._replace(known)
        self._log.add("model_registered", model.name, model.source.url, level=logging.INFO)
        pool = self._dispatcher.queue(model).pool if load else None
        if pool is not None:
            self._supervisor.wake(pool, load=True)
        was_scaled = known is not None and known.scaled_to.values()
        return pool, Model(known.name, known.source, scaled_to=known.scaled_to) if known and was_scaled else None

    async def scale(self, name: str, asked: ModelSettings, *, wait: bool) -> Model:
        """Changes how many workers a model has, and whatever else is said."""
        pool, failure = await self.finish_anyway(self._scale(name, asked))
        if wait:
            try:
                await self._reach(pool, failure)
            except InsufficientMemory as error:
                message = f"{error} What was asked holds: the workers start as soon as there is memory."
                raise InsufficientMemory(message) from error
        return pool.model

    async def _scale(self, name: str, asked: ModelSettings) -> tuple[Pool, LoadFailure | None]:
        """Gives what was wrong with the model before."""
        async with self._changing:
            model = await self._registry.find(name)
            scaled_to = asked.over(model.scaled_to)
            await self._save(model, scaled_to)
            model.scaled_to = scaled_to
        if asked.values():
            self._log.add("model_scaled", name, level=logging.INFO, asked=asked.values())
        pool = self._dispatcher.queue(model).pool
        failure = pool.failure
        self._supervisor.rescale(pool, to_minimum=asked.min_workers is not None)
        return pool, failure

    async def unregister(self, name: str) -> None:
        """Takes a model away. What was accepted for it is answered first."""
        await self.finish_anyway(self._unregister(name))

    async def _unregister(self, name: str) -> None:
        async with self._changing:
            model = await self._registry.find(name)
            await self._save_without(name)
            self._registry.remove(model)
        self._log.add("model_unregistered", name, level=logging.INFO)
        await self.finish(model)

    async def lose(self, model: Model) -> None:
        """Its files have gone. What was accepted is answered; a registration holds, for when they are back."""
        await self.finish_anyway(self._lose(model))

    async def _lose(self, model: Model) -> None:
        async with self._changing:
            if self._registry.get(model.name) is not model or (model.registered and model.content is None):
                return
            anew = self._registry.lose(model)
            if anew is not None:
                self._supervisor.rescale(self._dispatcher.queue(anew).pool, to_minimum=False)
        self._log.add("model_gone", model.name, model.source.url, level=logging.WARNING)
        await self.finish(model)

    async def describe(self, name: str) -> ModelQueue:
        return self._dispatcher.queue(await self._registry.find(name))

    async def list(self) -> list[Listed]:
        urls = await self._registry.urls()
        return [Listed(name, url, self._status(name)) for name, url in urls.items()]

    def _status(self, name: str) -> str:
        model = self._registry.get(name)
        return self._dispatcher.queue(model).pool.status if model is not None else "SLEEPING"

    async def _locate(self, url: str, name: str | None) -> tuple[Source, str]:
        source = self._registry.source(url)
        if name is None:
            last = posixpath.basename(source.url)
            name = name_of(last) or last
        if not valid_name(name):
            raise BadRequest(f"Not a model name: {name!r}: {NAME_RULE}.")
        if not await self._registry.in_thread(source.exists):
            raise ModelNotFound(url, f"there is neither a directory nor an archive at {source.url}")
        return source, name

    def _in_use(self, model: Model) -> bool:
        queue = self._dispatcher.queue(model)
        return bool(queue.pool.workers or queue.waiting)

    def _replace(self, known: Model) -> None:
        """Ends what the store's model has, now that another has its name. What was accepted for it is answered."""
        if self._in_use(known):
            self._keep(self.finish(known))
        else:
            self._supervisor.dismiss(self._dispatcher.queue(known).pool)
            self._dispatcher.forget(known)

    async def _reach(self, pool: Pool, failure: LoadFailure | None) -> None:
        """Waits until as many workers as were asked for are ready; raises what keeps them from it, if it is news."""
        while True:
            if pool.failure is not None and pool.failure is not failure:
                error = pool.failure.error()
                raise InsufficientMemory(str(error)) if isinstance(error, NoMemory) else error
            if self._registry.get(pool.model.name) is not pool.model:
                raise Conflict(f"Model {pool.model.name} was unregistered meanwhile.")
            if pool.settled:
                return
            await pool.changed.wait()

    async def _restored(self, record: Record) -> Model | None:
        store = self._registry.store
        try:
            source = None if record.source is None else self._registry.source(record.source)
        except ServingError as error:
            logger.error("model %s cannot be served as it was registered: %s", record.name, error)
            return None
        if source is None and store is not None:
            source = await self._registry.in_thread(lambda: store.recall(record.name))
        if source is None:
            logger.warning("model %s was scaled and is not in the store any more", record.name)
            return None
        return record.model(source)

    async def _save(self, model: Model, scaled_to: ModelSettings | None = None) -> None:
        """As it is, or is to be scaled."""
        await self._write(self._registrations.save, Record.of(model, scaled_to or model.scaled_to))

    async def _save_without(self, name: str) -> None:
        """As if the model had never been registered; what the store has by its name stays away."""
        if await self._registry.may_find(name):
            await self._write(self._registrations.save, Record(name, withdrawn=True))
        else:
            await self._write(self._registrations.remove, name)

    async def _write(self, write: Callable[[_T], None], what: _T) -> None:
        try:
            await asyncio.to_thread(write, what)
        except (OSError, ValueError) as error:
            message = f"Not done, because it could not be saved for certain in state_dir: {error}"
            raise StateNotSaved(message) from error

    async def _take_back(self, model: Model, scaled: Model | None) -> None:
        """Of a registration that has failed nothing remains; `scaled` is the store's model that it has replaced."""
        async with self._changing:
            if self._registry.get(model.name) is not model:
                # Unregistered meanwhile: what is there by its name now is another's.
                return
            self._registry.discard(model)
            self._log.add("model_unregistered", model.name, "it did not load", level=logging.INFO)
            if scaled is not None:
                # Before anything is awaited: a request would find the store's model as it was never scaled.
                self._registry.add(scaled)
                self._supervisor.wake(self._dispatcher.queue(scaled).pool)
            try:
                if scaled is not None:
                    await self._save(scaled)
                elif self._registry.is_withdrawn(model.name):
                    await self._save_without(model.name)
                else:
                    await self._write(self._registrations.remove, model.name)
            except StateNotSaved as error:
                # The caller is told why the model does not load, which is what it has to mend first.
                logger.error(
                    "model %s: its registration has failed, and may be back at the next start: %s", model.name, error
                )
        await self.finish(model)

    async def finish_anyway(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Waits for it, and lets it be finished if the caller goes away.

        A write goes on in its thread whoever goes away: what it has changed on the disk has to hold here too.
        """
        return await asyncio.shield(self._keep(work))

    def _keep(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, model: Model) -> None:
        queue = self._dispatcher.queue(model)
        await self._dispatcher.settle(queue, self._drain_timeout)
        await self._supervisor.retire(queue.pool)
        self._dispatcher.forget(model)
        # Somebody may wait for its workers, and it may never have had one whose end would tell.
        queue.pool.notify()
