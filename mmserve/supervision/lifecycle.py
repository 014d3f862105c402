"""The life of a worker process, from its start to its end, as events for those who decide about it.

    start ──► STARTING ──► forked ──► LOADING ──► loaded ──► IDLE ◄──► BUSY ──► retire, dump ──► ended
                 └──► not_started        └──► load_failed

Here is how it is done and noted down; when and why is the supervisor's. Every end, whatever its cause, is noticed by
the process's pidfd and comes out as `ended`, once, after what the process had published before it died.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from mmserve.errors import ModelFailed, ServingError
from mmserve.models.model import Content
from mmserve.observability.events import EventLog
from mmserve.supervision.environments import Supply
from mmserve.supervision.memory import MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.preparation import Preparation
from mmserve.supervision.starting import Starter
from mmserve.supervision.worker import Exit, Worker, WorkerState
from mmserve_worker.channel import Frame, Kind

logger = logging.getLogger("mmserve.supervision")

# Seconds that a worker has to end after it was asked to.
_STOP_TIMEOUT = 5.0
# Characters that are kept of what a model says of its failure, which it may say again and again.
_LONGEST = 4096
# Seconds that it has to write its stacks to the log before it is killed.
_DUMP_TIMEOUT = 1.0

_STREAMED = (Kind.STREAM, Kind.PIECE, Kind.STREAM_END)


class Ended(NamedTuple):
    """How a worker ended, what it held then, and whether it had so much as looked at that."""

    exit: Exit
    expected: bool
    held: Any
    taken: bool


class Owner(Protocol):
    """Who is told: the supervisor."""

    def content_known(self, pool: Pool) -> None: ...

    def not_started(self, worker: Worker, error: ServingError | None) -> None: ...

    def loaded(self, worker: Worker) -> None: ...

    def load_failed(self, worker: Worker, error: ServingError, traceback: str) -> None: ...

    def ended(self, worker: Worker, how: Ended) -> None: ...


class Lifecycle:
    """`answered` is told of every frame of answers, `streamed` of those of answers that come in pieces: the
    dispatcher, without a detour."""

    def __init__(
        self,
        supply: Supply,
        preparation: Preparation,
        owner: Owner,
        *,
        account: MemoryAccount,
        log: EventLog,
        channel_capacity: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._supply = supply
        self._owner = owner
        self._account = account
        self._log = log
        self._starter = Starter(supply, preparation, self, capacity=channel_capacity)
        self._closing = False
        self.answered: Callable[[Worker, Frame], None]
        self.streamed: Callable[[Worker, Frame], None]
        self.prepare = preparation.prepare
        self.workers: set[Worker] = set()
        preparation.start(self.workers)
        # Those that are loading their model.
        self.loading: set[Worker] = set()
        # Since the server started.
        self.started = 0
        self.ended = 0

    def start(self, pool: Pool, reason: str, content: Content | None = None) -> Worker:
        """A worker that is being started. Raises OSError if there is no channel to be had for it.

        Without `content` it gets what the model's source says now.
        """
        worker = self._starter.start(pool, reason, content)
        pool.workers.add(worker)
        self.workers.add(worker)
        self._account.add(worker)
        return worker

    def retire(self, worker: Worker, reason: str) -> None:
        """Ends a worker: now, or as soon as it has finished what it holds."""
        worker.retiring = True
        worker.stop_reason = worker.stop_reason or reason
        if worker.state is WorkerState.IDLE:
            worker.pool.idle.remove(worker)
            self.stop(worker)
        elif worker.state is WorkerState.LOADING and worker.pid:
            self.abort(worker)
        elif worker.state is WorkerState.STARTING:
            self._starter.hurry(worker)

    def stop(self, worker: Worker) -> None:
        """Asks a worker that holds nothing to end."""
        worker.stop()
        self._account.leaving(worker)
        self._loop.call_later(_STOP_TIMEOUT, worker.kill)

    def abort(self, worker: Worker) -> None:
        """Ends a worker whose work nobody waits for any more."""
        worker.abort()
        self._account.leaving(worker)

    def dump(self, worker: Worker, reason: str, what: str) -> None:
        """Ends a worker that does not come back, with its stacks in the log."""
        worker.retiring = True
        worker.stop_reason = reason
        self._log.add("worker_stuck", worker.pool.model.name, what, level=logging.WARNING, pid=worker.pid)
        worker.dump()
        self._account.leaving(worker)
        self._loop.call_later(_DUMP_TIMEOUT, worker.kill)

    async def close(self) -> None:
        """Ends all workers, as the server ends. What they hold by now is given up."""
        self._closing = True
        await self._starter.stop()
        for worker in list(self.workers):
            worker.stop_reason = worker.stop_reason or "stop"
            if worker.state is WorkerState.IDLE:
                self.stop(worker)
            elif worker.state is not WorkerState.STOPPING:
                worker.kill()
        while self.workers:
            # Whoever does not end by itself is killed after a while.
            await next(iter(self.workers)).pool.changed.wait()

    def content_known(self, pool: Pool) -> None:
        """Where the files say that a worker needs more memory than there is, its start is taken back: the next one
        waits until there is room for that."""
        pool.refresh_settings()
        for worker in pool.serving:
            if worker.state is WorkerState.STARTING and not self._account.expect(worker):
                self.retire(worker, "required_memory_mb")
                self._account.leaving(worker)
        self._owner.content_known(pool)

    def worker_not_started(self, worker: Worker, error: ServingError | None) -> None:
        self._forget(worker)
        self._owner.not_started(worker, error)

    def worker_forked(self, worker: Worker) -> None:
        self._loop.add_reader(worker.channel.receive_fd, self._read_frames, worker)
        self._loop.add_reader(worker.pidfd, self._ended, worker)
        self.started += 1
        self.loading.add(worker)
        self._account.forked(worker)
        worker.pool.stats.worker_started(worker.start_reason)
        self._log.add("worker_started", worker.pool.model.name, worker.start_reason, pid=worker.pid)
        if worker.retiring:
            self.abort(worker)

    def _forget(self, worker: Worker) -> None:
        pool = worker.pool
        self.workers.discard(worker)
        self.loading.discard(worker)
        pool.workers.discard(worker)
        if worker in pool.idle:
            pool.idle.remove(worker)
        self._account.remove(worker)
        if worker.template is not None:
            self._supply.leave(worker.template)
        pool.notify()

    def _read_frames(self, worker: Worker) -> None:
        try:
            for frame in worker.channel.receive():
                if frame.kind == Kind.ANSWERS:
                    self.answered(worker, frame)
                elif frame.kind in _STREAMED:
                    self.streamed(worker, frame)
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
        if worker.state is not WorkerState.LOADING:
            # It was told to end meanwhile.
            return
        self.loading.discard(worker)
        if frame.kind == Kind.LOADED:
            assert worker.template is not None
            worker.template.learn(message["modules"])
            worker.loaded()
            self._account.loaded(worker)
            self._note_start(worker)
            self._owner.loaded(worker)
        elif frame.kind == Kind.LOAD_FAILED:
            worker.retiring = True
            worker.stop_reason = "load_failed"
            self.stop(worker)
            kind, said = message["type"][:_LONGEST], message["message"][:_LONGEST]
            error = ModelFailed(kind, f"{kind}: {said}", status=message["status"])
            self._owner.load_failed(worker, error, message["traceback"][-_LONGEST:])

    def _note_start(self, worker: Worker) -> None:
        seconds = time.monotonic() - worker.asked_at
        worker.pool.note_start(seconds)
        if worker.start_reason == "request":
            worker.pool.stats.cold_start(seconds)

    def _ended(self, worker: Worker) -> None:
        """The process has ended: what it had published still counts, what it held is lost."""
        worker.ended = True
        self._loop.remove_reader(worker.pidfd)
        self._read_frames(worker)
        self._loop.remove_reader(worker.channel.receive_fd)
        expected = worker.state is WorkerState.STOPPING or self._closing
        held = worker.held
        # What still lies in the channel cannot be what it died of.
        taken = not worker.channel.unread()
        end = worker.reap()
        self.ended += 1
        self._forget(worker)
        self._note_end(worker, end, expected=expected)
        self._owner.ended(worker, Ended(end, expected, held, taken))

    def _note_end(self, worker: Worker, end: Exit, *, expected: bool) -> None:
        kind, reason = ("worker_stopped", worker.stop_reason) if expected else ("worker_died", str(end))
        level = logging.DEBUG if expected else logging.WARNING
        worker.pool.stats.worker_stopped(worker.stop_reason if expected else "died")
        self._log.add(kind, worker.pool.model.name, reason, level=level, pid=worker.pid, answered=worker.answered)
