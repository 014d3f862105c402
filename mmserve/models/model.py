"""A model as the server knows it: its name, where it comes from, and how it wants to be served."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmserve.models.settings import ModelSettings
from mmserve.models.source import Fingerprint, Source

if TYPE_CHECKING:
    # Commands need no more of a model than its settings, and parsing requirements takes 30 ms to import.
    from mmserve.models.requirements import Requirements

_T = TypeVar("_T")

MIB = 1024 * 1024

_keys = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Content:
    """A model's unpacked files and what they say of how to serve it."""

    directory: Path
    options: Mapping[str, str]
    settings: ModelSettings
    has_code: bool
    # Of the source when it was read, to see whether it has changed since.
    fingerprint: Fingerprint
    # Equal for equal files: the digest of an archive, or the fingerprint of a directory.
    version: str | Fingerprint
    # Its worker refuses to unpickle and to run what is not a library's.
    codeless: bool = False
    # What it needs an environment of its own for.
    requirements: Requirements | None = None
    # What its model-config.yaml says beside `settings`.
    configured: ModelSettings = field(default_factory=ModelSettings)


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """What holds for one model after all that was said: nearest wins. Times in seconds."""

    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: float
    max_idle_time: float
    job_queue_size: int
    weight: float
    pinned: bool
    # Bytes that a worker may hold; None is without limit.
    max_memory: int | None
    predict_timeout: float
    model_loading_timeout: float
    # Bytes that have to be there for a worker to start, whatever others hold.
    required_memory: int = 0


# The fields that are said in another unit, under a name of its own.
_HOLDS_AS = {
    "max_batch_delay_ms": "max_batch_delay",
    "max_memory_mb": "max_memory",
    "required_memory_mb": "required_memory",
}
_CONTRARY = {"min_workers": "max_workers", "max_workers": "min_workers"}


@dataclass(eq=False, slots=True)
class Model:
    """One servable model. What was said of it by POST and by PUT is kept apart; `key` names it in frames."""

    name: str
    source: Source
    registered: bool = False
    # Loaded at the start, and kept so unless its file wants no worker.
    kept: bool = False
    registered_with: ModelSettings = field(default_factory=ModelSettings)
    # Of its code, as it was said by POST; else its files say it.
    handler: str = ""
    # Of all that was ever said by PUT, the latest.
    scaled_to: ModelSettings = field(default_factory=ModelSettings)
    content: Content | None = None
    key: int = field(default_factory=lambda: next(_keys))

    def anew(self) -> Model:
        """As it was said to be served, and nothing of its files."""
        return replace(self, content=None, key=next(_keys))

    def settings(self, defaults: EffectiveSettings) -> EffectiveSettings:
        said = ModelSettings()
        for _, layer in self._layers(defaults):
            said = said.over(layer)
        delay, memory, required = said.max_batch_delay_ms, said.max_memory_mb, said.required_memory_mb
        return EffectiveSettings(
            min_workers=_first(said.min_workers, defaults.min_workers),
            max_workers=_first(said.max_workers, defaults.max_workers),
            batch_size=_first(said.batch_size, defaults.batch_size),
            max_batch_delay=defaults.max_batch_delay if delay is None else delay / 1000,
            max_idle_time=_first(said.max_idle_time, defaults.max_idle_time),
            job_queue_size=_first(said.job_queue_size, defaults.job_queue_size),
            weight=_first(said.weight, defaults.weight),
            pinned=_first(said.pinned, defaults.pinned),
            max_memory=defaults.max_memory if memory is None else math.ceil(memory * MIB),
            required_memory=defaults.required_memory if required is None else math.ceil(required * MIB),
            predict_timeout=_first(said.predict_timeout, defaults.predict_timeout),
            model_loading_timeout=_first(said.model_loading_timeout, defaults.model_loading_timeout),
        )

    def sources(self, defaults: EffectiveSettings) -> dict[str, str]:
        """Where each of the settings comes from. A bound that gave way to a nearer one comes from where that does."""
        sources = {each.name: "server" for each in fields(EffectiveSettings)}
        said = ModelSettings()
        for source, layer in self._layers(defaults):
            both = said.over(layer)
            for name, value in layer.values().items():
                if getattr(said, name) is None:
                    gave_way = getattr(both, name) != value
                    sources[_HOLDS_AS.get(name, name)] = sources[_CONTRARY[name]] if gave_way else source
            said = both
        if self.handler:
            sources["handler"] = "registration"
        elif self.said_handler:
            sources["handler"] = "serving.properties"
        return sources

    @property
    def said_handler(self) -> str:
        """The function of its code, as far as somebody has said it and its files have been read."""
        return self.handler or (self.content.options.get("option.handler", "") if self.content is not None else "")

    def _layers(self, defaults: EffectiveSettings) -> Iterator[tuple[str, ModelSettings]]:
        """All that was said, the nearest first."""
        yield "scaling", self.scaled_to
        yield "registration", self.registered_with
        if self.content is not None:
            yield "serving.properties", self.content.settings
            yield "model-config.yaml", self.content.configured
            if self.content.has_code:
                # A batch is a contract with code of the model's own, which has to ask for it; scikit-learn's takes
                # rows.
                yield "model code", ModelSettings(batch_size=1)
        if self.kept:
            yield "load_models", ModelSettings(min_workers=max(1, defaults.min_workers))
        # The server's bounds give way like all others.
        least = defaults.min_workers
        yield "server", ModelSettings(min_workers=least, max_workers=max(defaults.max_workers, least, 1))


def _first(said: _T | None, otherwise: _T) -> _T:
    return otherwise if said is None else said
