"""A model as the server knows it: its name, where it comes from, and how it wants to be served."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmserve.models.settings import ModelSettings

_keys = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Content:
    """A model's unpacked files and what they say of how to serve it."""

    directory: Path
    options: Mapping[str, str]
    settings: ModelSettings
    has_code: bool


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """What holds for one model after all that was said: nearest wins. Times in seconds."""

    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: float
    max_idle_time: float
    job_queue_size: int


@dataclass(eq=False, slots=True)
class Model:
    """One servable model. `asked` is what was said at registration or by scaling; `key` names it in frames."""

    name: str
    source: Path
    registered: bool = False
    asked: ModelSettings = field(default_factory=ModelSettings)
    content: Content | None = None
    key: int = field(default_factory=lambda: next(_keys))

    def settings(self, defaults: EffectiveSettings) -> EffectiveSettings:
        said = self.asked
        if self.content is not None:
            said = said.over(self.content.settings)
        # A batch is a contract with code of the model's own, which has to ask for it; scikit-learn's takes rows.
        batch_size = 1 if self.content is not None and self.content.has_code else defaults.batch_size
        min_workers = defaults.min_workers if said.min_workers is None else said.min_workers
        max_workers = max(defaults.max_workers if said.max_workers is None else said.max_workers, min_workers, 1)
        delay = said.max_batch_delay_ms
        return EffectiveSettings(
            min_workers=min_workers,
            max_workers=max_workers,
            batch_size=batch_size if said.batch_size is None else said.batch_size,
            max_batch_delay=defaults.max_batch_delay if delay is None else delay / 1000,
            max_idle_time=defaults.max_idle_time if said.max_idle_time is None else said.max_idle_time,
            job_queue_size=defaults.job_queue_size if said.job_queue_size is None else said.job_queue_size,
        )
