"""The models that the server knows: those that were registered, and those of the store that were asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from mmserve.errors import ModelNotFound, ServingError
from mmserve.models.archive import NAME_RULE, valid_name, without_suffix
from mmserve.models.model import Model
from mmserve.models.s3_objects import Objects
from mmserve.models.settings import ModelSettings
from mmserve.models.source import Source
from mmserve.models.store import Store
from mmserve.models.stores import source_of

logger = logging.getLogger("mmserve.models")

_T = TypeVar("_T")

# Among the names of models that are kept loaded: every one.
_ALL = "ALL"

# Seconds for which the store is believed to hold no other model than the one it held.
_ONLY_FOR = 1.0
# Names that the store is asked for at one time; it may be far away.
_THREADS = 16
# Lists of all there is, apart from those: the first of S3 may take long, and all who ask wait for it.
_LISTING_THREADS = 2


class Registry:
    """`objects` is for models that are registered by urls of S3; `kept` are the names of those models of the store that
    are loaded at the start, or ALL."""

    def __init__(self, store: Store | None, objects: Objects, kept: Iterable[str] = ()) -> None:
        self.store = store
        self._objects = objects
        self._kept = {without_suffix(name) or name for name in kept}
        self._models: dict[str, Model] = {}
        # Unregistered by these names: what the store has by them is served only when it is registered.
        self._withdrawn: set[str] = set()
        # What was asked by PUT for models that are not in the store now.
        self._scalings: dict[str, ModelSettings] = {}
        # Of a server for one model: whatever else was registered with it.
        self._main: str | None = None
        self._only: str | None = None
        self._only_until = 0.0
        self._finding: dict[str, asyncio.Task[Source | None]] = {}
        # Of its own, so that a store that does not answer holds up nothing else.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._listing_threads = ThreadPoolExecutor(_LISTING_THREADS, thread_name_prefix="list")

    def source(self, url: str) -> Source:
        """What a registration's `url` means."""
        return source_of(url, self.store, self._objects)

    def get(self, name: str) -> Model | None:
        """A model that has been asked for before; never touches the disk."""
        return self._models.get(name)

    async def find(self, name: str) -> Model:
        """The model of this name, looked for in the store if it is new. Raises ModelNotFound, or another ServingError
        where the store cannot say."""
        model = self._models.get(name)
        if model is not None:
            return model
        if not valid_name(name):
            raise ModelNotFound(name, NAME_RULE)
        if self.store is None or name in self._withdrawn:
            raise ModelNotFound(name)
        # Names that are made up, each of which is looked for, hold up none that is known.
        source = self.store.known(name) or await self.look_up(name)
        if source is None or name in self._withdrawn:
            raise ModelNotFound(name)
        # Another request may have found it meanwhile.
        model = self._models.get(name)
        if model is None:
            scaled_to = self._scalings.pop(name, ModelSettings())
            kept = not self._kept.isdisjoint((name, _ALL))
            model = self._models[name] = Model(name, source, scaled_to=scaled_to, kept=kept)
        return model

    async def kept(self) -> AsyncIterator[Model]:
        """Those that are to be loaded at the start."""
        names = await self.urls() if _ALL in self._kept else sorted(self._kept)
        for name in names:
            try:
                yield await self.find(name)
            except ServingError as error:
                logger.warning("load_models: %s: %s", name, error)

    async def may_find(self, name: str) -> bool:
        """Whether the store has this name, as far as it can say so: if it cannot, it may."""
        try:
            return self.store is not None and await self.look_up(name) is not None
        except ServingError:
            return True

    async def look_up(self, name: str) -> Source | None:
        """What the store has by this name, asked once for all who want to know at the same time."""
        assert self.store is not None
        task = self._finding.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self.in_thread(partial(self.store.find, name)))
            self._finding[name] = task
            task.add_done_callback(lambda done: self._found(name, done))
        return await asyncio.shield(task)

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Does what asks the store, or a source, and may take its time."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def withdraw(self, name: str) -> None:
        """What the store has by this name is served only when it is registered."""
        self._withdrawn.add(name)

    def is_withdrawn(self, name: str) -> bool:
        return name in self._withdrawn

    def add(self, model: Model) -> None:
        self._models[model.name] = model
        self._scalings.pop(model.name, None)
        self._only_until = 0.0

    def add_main(self, model: Model) -> None:
        """The one that is meant where no model is named."""
        self.add(model)
        self._main = model.name

    def discard(self, model: Model) -> None:
        """Forgets a model as if it had not been added; one of the store is found there again."""
        self._only_until = 0.0
        if self._models.get(model.name) is model:
            del self._models[model.name]

    def lose(self, model: Model) -> Model | None:
        """Its files have gone; when they are back, it is as it was registered and scaled. Gives what stands for it
        until then if it was registered."""
        self.discard(model)
        if model.registered:
            anew = self._models[model.name] = model.anew()
            return anew
        if model.scaled_to.values():
            self._scalings[model.name] = model.scaled_to
        return None

    def remove(self, model: Model) -> None:
        """Forgets a model; one of the store stays away until it is registered again."""
        self.discard(model)
        self.withdraw(model.name)

    @property
    def models(self) -> list[Model]:
        return list(self._models.values())

    async def urls(self) -> dict[str, str]:
        """Every servable model and where it comes from, sorted by name."""
        found: dict[str, str] = {}
        if self.store is not None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._listing_threads, self.store.models)
        for name in self._withdrawn:
            found.pop(name, None)
        found.update((model.name, model.source.url) for model in self._models.values())
        return dict(sorted(found.items()))

    async def only(self) -> str | None:
        """The name of the model that is meant where none is named: that of a server for one model, or else the only one
        that there is. The store is not read for every request."""
        if self._main in self._models:
            return self._main
        if time.monotonic() >= self._only_until:
            names = list(await self.urls())
            self._only = names[0] if len(names) == 1 else None
            self._only_until = time.monotonic() + _ONLY_FOR
        return self._only

    def _found(self, name: str, done: asyncio.Task[Source | None]) -> None:
        del self._finding[name]
        if not done.cancelled():
            # Those who have asked may all have gone.
            done.exception()
