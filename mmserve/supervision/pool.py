"""The workers of one isolation group, which is one model now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sized

from mmserve.models.model import Content, EffectiveSettings, Model
from mmserve.observability.stats import ModelStats
from mmserve.supervision.failure import Failures, LoadFailure
from mmserve.supervision.policy import WAITING, Sight
from mmserve.supervision.worker import Worker, WorkerState

# What a start takes until one was measured, in seconds.
_USUAL_START = 0.025
# How much the latest counts in what is measured again and again.
_LATEST = 0.2
# The share of CPU time is measured anew after this many seconds of work.
_SHARE_EVERY = 0.1
# Seconds of work from which on it says something.
_LEAST_BUSY = 0.02
_COMING = (WorkerState.STARTING, WorkerState.LOADING)
_ENDING = (WorkerState.STOPPING, WorkerState.DEAD)


class Pool:
    """What should run for a model, what does, and what went wrong.

    Changed by the supervisor, but for `idle`, from which the dispatcher takes the worker that it gives a batch to.
    """

    def __init__(self, model: Model, defaults: EffectiveSettings, stats: ModelStats) -> None:
        self.model = model
        self._defaults = defaults
        self.settings = model.settings(defaults)
        self.stats = stats
        self.workers: set[Worker] = set()
        # The most recently used is last and is taken first, so that the others really become idle.
        self.idle: list[Worker] = []
        # The requests that no worker has: the queue's.
        self.waiting: Sized = ()
        # Somebody asked for the model to be loaded, without a request for it.
        self.wanted = False
        # Its model has been taken away: nothing is started any more.
        self.retired = False
        self.failures = Failures()
        self.preparing: asyncio.Task[None] | None = None
        # A newer version that one worker tries out, beside those that serve.
        self.candidate: Content | None = None
        # Set whenever a worker became ready, failed or ended.
        self.changed = asyncio.Event()
        # Seconds that a batch takes, and a start, on average of late.
        self.service_time: float | None = None
        self.start_time = _USUAL_START
        # Bytes that a worker of this model was last seen to hold.
        self.worker_memory: int | None = None
        # When it was last used (monotonic), if its worker was evicted since; and what lay between its two last uses,
        # if it was evicted between them.
        self.evicted_after: float | None = None
        self.interval: float | None = None
        self._uses = 0
        # It has been loaded, once at least.
        self.proven = False
        # The supervisor looks at it in its rounds.
        self.adopted = False
        # Its handler waits for something else than a CPU, as far as that was looked at.
        self.waits = False
        self._cpu_share: float | None = None
        self._share_after = _SHARE_EVERY

    @property
    def failure(self) -> LoadFailure | None:
        return self.failures.last

    @property
    def serving(self) -> list[Worker]:
        """The workers that are meant to stay."""
        return [
            worker
            for worker in self.workers
            if not worker.retiring and worker.state not in _ENDING and not worker.is_trial
        ]

    @property
    def outdated(self) -> list[Worker]:
        """Those that have yet to be replaced by ones with the model's newer files, idle ones first."""
        found = [worker for worker in self.serving if worker.is_outdated]
        return sorted(found, key=lambda worker: worker.state is not WorkerState.IDLE)

    @property
    def ready(self) -> int:
        return sum(worker.state in (WorkerState.IDLE, WorkerState.BUSY) for worker in self.workers)

    @property
    def status(self) -> str:
        """READY, PENDING while the first worker comes up, FAILED, or SLEEPING."""
        if self.ready:
            return "READY"
        if any(worker.state in _COMING for worker in self.workers):
            return "PENDING"
        return "FAILED" if self.failure is not None else "SLEEPING"

    @property
    def settled(self) -> bool:
        """As many workers as were asked for are ready, and none is on its way out."""
        least = max(self.settings.min_workers, 1 if self.wanted else 0)
        return self.ready >= least and not any(worker.retiring or worker.state in _ENDING for worker in self.workers)

    def sight(self, now: float) -> Sight:
        """What there is for the policy to decide by."""
        settings = self.settings
        serving = self.serving
        busy = sum(worker.state is WorkerState.BUSY for worker in serving)
        return Sight(
            min_workers=settings.min_workers,
            max_workers=settings.max_workers,
            batch_size=settings.batch_size,
            max_idle_time=settings.max_idle_time,
            waiting=len(self.waiting),
            busy=busy,
            starting=len(serving) - busy - len(self.idle),
            idle=[now - worker.idle_since for worker in self.idle],
            wanted=self.wanted,
            service_time=self.service_time,
            start_time=self.start_time,
            cpu_share=self.cpu_share(now) if self.waiting else None,
            proven=self.proven,
        )

    def note_service(self, seconds: float) -> None:
        """A batch took so long."""
        average = self.service_time
        self.service_time = seconds if average is None else average + _LATEST * (seconds - average)

    def note_start(self, seconds: float) -> None:
        self.start_time += _LATEST * (seconds - self.start_time)

    def came_up(self, now: float) -> None:
        """A worker is ready."""
        self.wanted = False
        self.proven = True
        if self.evicted_after is not None:
            self.interval, self.evicted_after = now - self.evicted_after, None
            self._uses = 0

    def used(self) -> None:
        """A worker has answered a batch. At the second since it came back, a model is like any other."""
        if self.interval is not None:
            self._uses += 1
            if self._uses > 1:
                self.interval = None

    def cpu_share(self, now: float) -> float | None:
        """How much of the time in which its workers answer they need a CPU for, running on it or waiting for it.

        None as long as that is not known. Looked at only where it makes a difference: it costs 12 us a worker.
        """
        busy = sum(worker.busy_seconds + worker.running_for(now) for worker in self.workers)
        if busy >= self._share_after or (self._cpu_share is None and busy >= _LEAST_BUSY):
            used = [worker.cpu_seconds() for worker in self.workers if worker.busy_seconds or worker.held is not None]
            known = [seconds for seconds in used if seconds is not None]
            if known and len(known) == len(used):
                self._cpu_share = min(1.0, sum(known) / busy)
            self._share_after = busy + _SHARE_EVERY
        elif busy < self._share_after - _SHARE_EVERY:
            # Workers have gone, and their figures with them.
            self._share_after = busy + _SHARE_EVERY
        return self._cpu_share

    def is_waiting(self, now: float) -> bool:
        """As `waits`, looked at again."""
        share = self.cpu_share(now)
        self.waits = share is not None and share < WAITING
        return self.waits

    def sources(self) -> Mapping[str, str]:
        """Where each of the settings comes from."""
        return self.model.sources(self._defaults)

    def refresh_settings(self) -> None:
        """Reads again what holds, after the model's content or what was asked for it has changed."""
        self.settings = self.model.settings(self._defaults)

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
