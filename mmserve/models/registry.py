"""The models that the server knows: those that were registered, and those of the store that were asked for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from mmserve.errors import ModelNotFound
from mmserve.models.model import Model
from mmserve.models.store import DirectoryStore

# Seconds for which the store is believed to hold no other model than the one it held.
_ONLY_FOR = 1.0


class Registry:
    def __init__(self, store: DirectoryStore | None) -> None:
        self.store = store
        self._models: dict[str, Model] = {}
        # Unregistered by these names: what the store has by them is served only when it is registered.
        self._withdrawn: set[str] = set()
        self._only: str | None = None
        self._only_until = 0.0

    def get(self, name: str) -> Model | None:
        """A model that has been asked for before; never touches the disk."""
        return self._models.get(name)

    async def find(self, name: str) -> Model:
        """The model of this name, looked for in the store if it is new. Raises ModelNotFound."""
        model = self._models.get(name)
        if model is not None:
            return model
        if self.store is None or name in self._withdrawn:
            raise ModelNotFound(name)
        source = await asyncio.to_thread(self.store.find, name)
        if source is None or name in self._withdrawn:
            raise ModelNotFound(name)
        # Another request may have found it meanwhile.
        return self._models.setdefault(name, Model(name, source))

    def withdraw(self, name: str) -> None:
        """What the store has by this name is served only when it is registered."""
        self._withdrawn.add(name)

    def is_withdrawn(self, name: str) -> bool:
        return name in self._withdrawn

    def add(self, model: Model) -> None:
        self._models[model.name] = model
        self._only_until = 0.0

    def discard(self, model: Model) -> None:
        """Forgets a model as if it had not been added; one of the store is found there again."""
        self._only_until = 0.0
        if self._models.get(model.name) is model:
            del self._models[model.name]

    def remove(self, model: Model) -> None:
        """Forgets a model; one of the store stays away until it is registered again."""
        self.discard(model)
        self.withdraw(model.name)

    async def sources(self) -> dict[str, Path]:
        """Every servable model and where it comes from, sorted by name."""
        found = {} if self.store is None else await asyncio.to_thread(self.store.models)
        for name in self._withdrawn:
            found.pop(name, None)
        found.update((model.name, model.source) for model in self._models.values())
        return dict(sorted(found.items()))

    async def only(self) -> str | None:
        """The name of the only model there is, if there is only one. The store is not read for every request."""
        if time.monotonic() >= self._only_until:
            names = list(await self.sources())
            self._only = names[0] if len(names) == 1 else None
            self._only_until = time.monotonic() + _ONLY_FOR
        return self._only
