"""Starts and stops workers: the only part that does.

    dispatcher ── wake, free ──► supervisor ── fork ──► template
        ▲                            │
        └── idle, answered, lost ────┘◄── frames, deaths ── worker

For every pool it compares what should run with what runs and mends the difference, whenever either has changed.
Starting is never on a request's path: the request waits in its queue while the worker comes up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from mmserve.errors import ModelFailed, ServingError
from mmserve.models.model import Content, EffectiveSettings, Model
from mmserve.supervision.pool import LoadFailure, Pool
from mmserve.supervision.starting import Starter
from mmserve.supervision.template import Template
from mmserve.supervision.worker import Exit, Worker, WorkerState
from mmserve_worker.channel import Frame, Kind

logger = logging.getLogger("mmserve.supervision")

# Seconds between two looks at what no event tells: memory of past large payloads that can be given back.
_TICK = 1.0
# A model of which so many workers have died early is not started again at once.
_MOST_EARLY_DEATHS = 3
# Seconds that a worker has to end after it was asked to.
_STOP_TIMEOUT = 5.0


class WorkerEvents(Protocol):
    """Who is told what became of workers: the dispatcher."""

    def worker_idle(self, worker: Worker) -> None: ...

    def worker_answered(self, worker: Worker, frame: Frame) -> None: ...

    def worker_lost(self, worker: Worker, held: Any, end: Exit, *, taken: bool) -> None: ...

    def worker_gone(self, pool: Pool) -> None: ...

    def pool_failed(self, pool: Pool, failure: LoadFailure) -> None: ...


class Supervisor:
    """`prepare` gets a model's content, blocking; `channel_capacity` is in bytes."""

    def __init__(
        self,
        template: Template,
        prepare: Callable[[Model], Content],
        defaults: EffectiveSettings,
        *,
        channel_capacity: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._template = template
        self._starter = Starter(template, prepare, self, capacity=channel_capacity)
        self._defaults = defaults
        self._events: WorkerEvents | None = None
        self._workers: set[Worker] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._stopping = False
        # Worker starts and ends since the server started.
        self.started = 0
        self.ended = 0

    @property
    def workers(self) -> set[Worker]:
        return self._workers

    @property
    def events(self) -> WorkerEvents:
        assert self._events is not None, "the dispatcher is connected before the first worker starts"
        return self._events

    def start(self, events: WorkerEvents) -> None:
        self._events = events
        self._template.start()
        self._ticking = self._loop.call_later(_TICK, self._tick)

    def pool(self, model: Model) -> Pool:
        return Pool(model, self._defaults)

    def wake(self, pool: Pool) -> None:
        """Somebody wants this model to be served."""
        pool.awake = True
        self.reconcile(pool)

    def rescale(self, pool: Pool, *, to_minimum: bool) -> None:
        """What was asked for the model has changed: brings its workers to what holds now.

        With `to_minimum` the worker that a request has started ends too, unless the minimum keeps it.
        """
        pool.refresh_settings()
        pool.awake = pool.awake and not to_minimum
        self.reconcile(pool)

    def reconcile(self, pool: Pool) -> None:
        serving = pool.serving
        missing = pool.desired - len(serving)
        if missing > 0 and not self._stopping:
            for _ in range(missing):
                if not self._start_worker(pool):
                    break
        elif missing < 0:
            # Idle ones first, and of these the least recently used.
            order = [*pool.idle, *(worker for worker in serving if worker not in pool.idle)]
            for worker in order[:-missing]:
                self._retire(pool, worker)

    def free(self, worker: Worker) -> bool:
        """The worker has finished its batch. Says whether it may be given another."""
        pool = worker.pool
        if worker.answered and (pool.failure is not None or pool.early_deaths):
            # Only now it is known that it serves.
            pool.failure = None
            pool.early_deaths = 0
        if worker.ended:
            return False
        if worker.retiring:
            self._stop_worker(worker)
            return False
        pool.idle.append(worker)
        return True

    async def retire(self, pool: Pool) -> None:
        """Ends all workers of a pool for good. Nobody waits for what one may still be busy with."""
        pool.retired = True
        for worker in pool.serving:
            self._retire(pool, worker)
        for worker in list(pool.workers):
            if worker.state is WorkerState.BUSY:
                worker.abort()
        while pool.workers:
            await pool.changed.wait()

    async def stop(self) -> None:
        """Ends everything. What workers hold by now is given up."""
        self._stopping = True
        if self._ticking is not None:
            self._ticking.cancel()
        await self._starter.stop()
        for worker in list(self._workers):
            if worker.state is WorkerState.IDLE:
                self._stop_worker(worker)
            elif worker.state is not WorkerState.STOPPING:
                worker.kill()
        while self._workers:
            # Whoever does not end by itself is killed after a while, see _stop_worker.
            await next(iter(self._workers)).pool.changed.wait()
        self._template.stop()

    def worker_forked(self, worker: Worker) -> None:
        self.started += 1
        self._loop.add_reader(worker.channel.receive_fd, self._read_frames, worker)
        self._loop.add_reader(worker.pidfd, self._ended, worker)
        if worker.retiring:
            worker.abort()

    def worker_not_started(self, worker: Worker, error: ServingError | None) -> None:
        self._forget(worker)
        if error is not None:
            self._fail(worker.pool, error, "")
        elif not self._stopping:
            self.events.worker_gone(worker.pool)

    def content_known(self, pool: Pool) -> None:
        """The files may ask for more than the one worker that the first request has started."""
        pool.refresh_settings()
        self.reconcile(pool)

    def _start_worker(self, pool: Pool) -> bool:
        try:
            worker = self._starter.start(pool)
        except OSError as error:
            self._fail(pool, ModelFailed(type(error).__name__, f"no channel for a worker: {error.strerror}"), "")
            return False
        pool.workers.add(worker)
        self._workers.add(worker)
        return True

    def _forget(self, worker: Worker) -> None:
        pool = worker.pool
        self._workers.discard(worker)
        pool.workers.discard(worker)
        if worker in pool.idle:
            pool.idle.remove(worker)
        pool.notify()

    def _retire(self, pool: Pool, worker: Worker) -> None:
        worker.retiring = True
        if worker.state is WorkerState.IDLE:
            pool.idle.remove(worker)
            self._stop_worker(worker)
        elif worker.state is WorkerState.LOADING and worker.pid:
            worker.abort()

    def _stop_worker(self, worker: Worker) -> None:
        worker.stop()
        self._loop.call_later(_STOP_TIMEOUT, worker.kill)

    def _read_frames(self, worker: Worker) -> None:
        try:
            for frame in worker.channel.receive():
                if frame.kind == Kind.ANSWERS:
                    self.events.worker_answered(worker, frame)
                else:
                    self._read_loading(worker, frame)
        except BlockingIOError:
            return
        except Exception:  # native code in a model can write anywhere, the channel included
            logger.exception("model %s: worker %d is ended: it has sent nonsense", worker.pool.model.name, worker.pid)
            worker.kill()

    def _read_loading(self, worker: Worker, frame: Frame) -> None:
        message = json.loads(bytes(frame.payload))
        worker.channel.release()
        pool = worker.pool
        if frame.kind == Kind.LOADED:
            self._template.learn(message["modules"])
            worker.loaded()
            pool.notify()
            if self.free(worker):
                self.events.worker_idle(worker)
        elif frame.kind == Kind.LOAD_FAILED:
            worker.retiring = True
            self._stop_worker(worker)
            error = ModelFailed(message["type"], f"{message['type']}: {message['message']}")
            self._fail(pool, error, message["traceback"])

    def _fail(self, pool: Pool, error: ServingError, traceback: str) -> None:
        """Takes note of a failed start. Its requests are told; unless others of the model's workers are there."""
        logger.error("model %s: no worker: %s", pool.model.name, error)
        pool.failure = LoadFailure.after(pool.failure, error, traceback, time.monotonic())
        pool.awake = False
        pool.notify()
        if not pool.serving:
            self.events.pool_failed(pool, pool.failure)

    def _ended(self, worker: Worker) -> None:
        """The process has ended: what it had published still counts, what it held is lost."""
        worker.ended = True
        self._loop.remove_reader(worker.pidfd)
        self._read_frames(worker)
        self._loop.remove_reader(worker.channel.receive_fd)
        self.ended += 1
        state, held = worker.state, worker.held
        # What still lies in the channel cannot be what it died of.
        taken = not worker.channel.unread()
        end = worker.reap()
        pool = worker.pool
        self._forget(worker)
        if state is not WorkerState.STOPPING:
            logger.warning("model %s: worker %d %s", pool.model.name, worker.pid, end)
            if not worker.answered:
                self._died_early(pool, end)
        if held is not None:
            self.events.worker_lost(worker, held, end, taken=taken)
        if not self._stopping:
            if pool.failure is None or time.monotonic() >= pool.failure.retry_at:
                self.reconcile(pool)
            self.events.worker_gone(pool)

    def _died_early(self, pool: Pool, end: Exit) -> None:
        """Once or twice may have been anything; a model that does so again and again is at fault."""
        pool.early_deaths += 1
        if pool.early_deaths >= _MOST_EARLY_DEATHS:
            pool.early_deaths = 0
            message = f"The worker {end} before it had answered anything, as did those before it."
            self._fail(pool, ModelFailed("WorkerDiedException", message), "")

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(_TICK, self._tick)
        for worker in self._workers:
            if worker.state is WorkerState.IDLE and worker.channel.trimmable and worker.channel.idle:
                worker.channel.trim()
