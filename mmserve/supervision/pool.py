"""The workers of one isolation group, which is one model now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mmserve.errors import ModelFailed, ServingError
from mmserve.models.model import EffectiveSettings, Model
from mmserve.supervision.worker import Worker, WorkerState

# After a failed load, requests are told of it at once for this long; doubled at every further failure. Seconds.
_FIRST_BACKOFF = 1.0
_LONGEST_BACKOFF = 60.0


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a model has no worker. Until `retry_at` (monotonic) nobody tries again."""

    status: int
    error_type: str
    message: str
    traceback: str
    attempts: int
    retry_at: float

    @classmethod
    def after(cls, earlier: LoadFailure | None, error: ServingError, traceback: str, now: float) -> LoadFailure:
        if earlier is not None and now < earlier.retry_at:
            # Another worker of those that were started together.
            attempts, retry_at = earlier.attempts, earlier.retry_at
        else:
            attempts = 1 if earlier is None else earlier.attempts + 1
            retry_at = now + min(_FIRST_BACKOFF * 2 ** (attempts - 1), _LONGEST_BACKOFF)
        return cls(error.status, error.error_type, str(error), traceback, attempts, retry_at)

    def error(self) -> ModelFailed:
        """An exception of its own for each caller: one that is raised again and again holds on to all their frames."""
        return ModelFailed(self.error_type, self.message, status=self.status)


class Pool:
    """What should run for a model, what does, and what went wrong.

    Changed by the supervisor, but for `idle`, from which the dispatcher takes the worker that it gives a batch to.
    """

    def __init__(self, model: Model, defaults: EffectiveSettings) -> None:
        self.model = model
        self._defaults = defaults
        self.settings = model.settings(defaults)
        self.workers: set[Worker] = set()
        # The most recently used is last and is taken first, so that the others really become idle.
        self.idle: list[Worker] = []
        # A request has come, or somebody asked for the model to be loaded.
        self.awake = False
        # Its model has been taken away: nothing is started any more.
        self.retired = False
        self.failure: LoadFailure | None = None
        # Workers that died before they had answered anything, since one answered.
        self.early_deaths = 0
        self.preparing: asyncio.Task[None] | None = None
        # Set whenever a worker became ready, failed or ended.
        self.changed = asyncio.Event()

    @property
    def desired(self) -> int:
        return 0 if self.retired else max(self.settings.min_workers, 1 if self.awake else 0)

    @property
    def serving(self) -> list[Worker]:
        """The workers that are meant to stay."""
        return [
            worker
            for worker in self.workers
            if not worker.retiring and worker.state not in (WorkerState.STOPPING, WorkerState.DEAD)
        ]

    @property
    def ready(self) -> int:
        return sum(worker.state in (WorkerState.IDLE, WorkerState.BUSY) for worker in self.workers)

    def refresh_settings(self) -> None:
        """Reads again what holds, after the model's content or what was asked for it has changed."""
        self.settings = self.model.settings(self._defaults)

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
