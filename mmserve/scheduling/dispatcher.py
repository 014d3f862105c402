"""Which waiting request goes to which free worker, and which answer to whom.

Knows Request objects, queues and workers; neither HTTP nor processes. A free worker takes what is waiting, at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from mmserve.errors import ModelFailed, PayloadTooLarge, QueueFull, Stopping
from mmserve.models.model import Model
from mmserve.scheduling.queue import Batch, ModelQueue, fail_late
from mmserve.scheduling.request import Answer, Request
from mmserve.supervision.pool import LoadFailure, Pool
from mmserve.supervision.supervisor import Supervisor
from mmserve.supervision.worker import Exit, Worker
from mmserve_worker import batch
from mmserve_worker.channel import ChannelError, Frame, FrameTooLarge, Kind

logger = logging.getLogger("mmserve.scheduling")

# Deadlines are looked at this often, in seconds: a timer for each request would cost the hot path more.
_DEADLINE_TICK = 0.1
# A request that has killed this many workers is not given to another.
_MOST_DEATHS = 2
_NO_HEADERS: dict[str, str] = {}


class Dispatcher:
    """The queues of all models that have been asked for, and the batches that workers hold."""

    def __init__(self, supervisor: Supervisor, *, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self._capacity = capacity
        self._queues: dict[int, ModelQueue] = {}
        # Queues with something to dispatch at the end of this turn of the event loop.
        self._due: list[ModelQueue] = []
        self._held: set[Worker] = set()
        self._batch_ids = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._stopping = False
        self._idle = asyncio.Event()

    def queue(self, model: Model) -> ModelQueue:
        queue = self._queues.get(model.key)
        if queue is None:
            queue = self._queues[model.key] = ModelQueue(model, self._supervisor.pool(model))
        return queue

    def forget(self, model: Model) -> None:
        self._queues.pop(model.key, None)

    def submit(self, model: Model, request: Request) -> None:
        """Accepts a request, whose future will be answered; or raises a ServingError at once."""
        if self._stopping:
            raise Stopping
        queue = self._queues.get(model.key) or self.queue(model)
        pool = queue.pool
        now = self._loop.time()
        if pool.failure is not None and now < pool.failure.retry_at and not pool.serving:
            raise pool.failure.error()
        if len(queue.waiting) >= pool.settings.job_queue_size:
            raise QueueFull(
                f"{len(queue.waiting)} requests wait for model {model.name}, as many as its job_queue_size allows."
            )
        request.queued_at = now
        queue.waiting.append(request)
        if not pool.workers:
            # Only now that the request waits: it is told if no worker can be had.
            self._supervisor.wake(pool)
        if pool.idle and not queue.due:
            # Not at once: what else has arrived in this turn of the event loop makes a batch with it.
            queue.due = True
            if not self._due:
                self._loop.call_soon(self._dispatch_due)
            self._due.append(queue)
        if self._ticking is None:
            self._ticking = self._loop.call_later(_DEADLINE_TICK, self._tick)

    def withdraw(self, model: Model, request: Request) -> None:
        """The caller has gone: its request goes too, unless a worker already has it."""
        queue = self._queues.get(model.key)
        if queue is not None and request in queue.waiting:
            queue.waiting.remove(request)

    async def drain(self, timeout: float) -> bool:
        """Accepts nothing more and finishes what was accepted. Says False if that took too long."""
        self._stopping = True
        try:
            async with asyncio.timeout(timeout):
                while self._busy():
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def settle(self, queue: ModelQueue) -> None:
        """Waits until a queue, to which nothing is submitted any more, is empty and its batches are answered."""
        while queue.waiting or any(_unanswered(worker) for worker in queue.pool.workers):
            self._idle.clear()
            await self._idle.wait()

    def worker_idle(self, worker: Worker) -> None:
        self._dispatch(self._queues[worker.pool.model.key])

    def worker_answered(self, worker: Worker, frame: Frame) -> None:
        held: Batch = worker.held
        if frame.batch_id != held.id:
            raise ChannelError(f"answers to batch {frame.batch_id} from a worker that has batch {held.id}")
        answers = [_answer(part) for part in batch.read(frame.payload, frame.parts)]
        worker.channel.release()
        requests = held.requests[held.answered : held.answered + len(answers)]
        held.answered += len(answers)
        if held.answered < len(held.requests):
            # The worker may be waiting for room for the rest.
            worker.channel.send(Kind.ACKNOWLEDGE)
        else:
            self._held.discard(worker)
            worker.vacate(held.answered)
            if self._supervisor.free(worker):
                # Before the answers go out, so that the worker has work while they do.
                self._dispatch(self._queues[worker.pool.model.key])
        for request, answer in zip(requests, answers, strict=True):
            if request.future.done():
                continue
            if isinstance(answer, Answer):
                request.future.set_result(answer)
            else:
                request.future.set_exception(answer)
        self._idle.set()

    def worker_lost(self, worker: Worker, held: Batch, end: Exit, *, taken: bool) -> None:
        """Tries once more, one by one, what a dead worker had taken; but not what another has died of before."""
        self._held.discard(worker)
        queue = self._queues[worker.pool.model.key]
        again = []
        for request in held.requests[held.answered :]:
            request.deaths += taken
            if request.future.done():
                continue
            if request.deaths < _MOST_DEATHS:
                again.append(request)
            else:
                message = f"The worker {end} while it answered this request, as did the one before it."
                request.future.set_exception(ModelFailed("WorkerDiedException", message))
        queue.give_back(again)
        # To another worker if there is one; otherwise `worker_gone` sees to them.
        self._dispatch(queue)
        self._idle.set()

    def worker_gone(self, pool: Pool) -> None:
        """A worker has ended, perhaps because fewer were asked for: what still waits needs one."""
        queue = self._queues.get(pool.model.key)
        if queue is not None and queue.waiting and not pool.serving:
            if pool.failure is not None and self._loop.time() < pool.failure.retry_at:
                self.pool_failed(pool, pool.failure)
            else:
                self._supervisor.wake(pool)
        self._idle.set()

    def pool_failed(self, pool: Pool, failure: LoadFailure) -> None:
        """No worker could be had: those who wait for one are told why."""
        queue = self._queues.get(pool.model.key)
        if queue is not None:
            for request in queue.waiting:
                if not request.future.done():
                    request.future.set_exception(failure.error())
            queue.waiting.clear()
        self._idle.set()

    def _dispatch_due(self) -> None:
        due, self._due = self._due, []
        for queue in due:
            queue.due = False
            self._dispatch(queue)

    def _dispatch(self, queue: ModelQueue) -> None:
        idle = queue.pool.idle
        while idle and queue.waiting:
            if self._delayed(queue):
                return
            taken = queue.take(self._capacity)
            taken.requests = [request for request in taken.requests if not request.future.done()]
            if taken.requests:
                self._send(idle.pop(), queue, taken)

    def _delayed(self, queue: ModelQueue) -> bool:
        """Whether the model asks to wait for a fuller batch, and there is still time to."""
        settings = queue.pool.settings
        if queue.delay is not None:
            queue.delay.cancel()
            queue.delay = None
        if not settings.max_batch_delay or len(queue.waiting) >= settings.batch_size:
            return False
        due = queue.waiting[0].queued_at + settings.max_batch_delay
        if due <= self._loop.time() or queue.waiting[0].deaths:
            return False
        queue.delay = self._loop.call_at(due, self._dispatch, queue)
        return True

    def _send(self, worker: Worker, queue: ModelQueue, taken: Batch) -> None:
        content = queue.model.content
        with_headers = content is not None and content.has_code
        parts = [batch.Part(0, request.meta(with_headers=with_headers), request.body) for request in taken.requests]
        try:
            batch.write(worker.channel, parts)
        except FrameTooLarge as error:
            # Metas can be long, and are not looked at before.
            queue.pool.idle.append(worker)
            self._send_less(queue, taken.requests, error)
            return
        self._batch_ids = (self._batch_ids + 1) & 0xFFFFFFFF
        taken.id = self._batch_ids
        worker.channel.send(
            Kind.BATCH,
            batch_id=taken.id,
            model_key=queue.model.key,
            parts=len(parts),
            deadline=max(request.deadline for request in taken.requests),
        )
        worker.occupy(taken)
        self._held.add(worker)

    def _send_less(self, queue: ModelQueue, requests: list[Request], error: FrameTooLarge) -> None:
        half = len(requests) // 2
        if half:
            queue.give_back(requests[half:])
            self._send(queue.pool.idle.pop(), queue, Batch(requests[:half]))
        else:
            requests[0].future.set_exception(PayloadTooLarge(f"The request is too large with its headers: {error}."))

    def _busy(self) -> bool:
        return any(map(_unanswered, self._held)) or any(queue.waiting for queue in self._queues.values())

    def _tick(self) -> None:
        """Answers what is late, as long as anything is waiting or held."""
        self._ticking = None
        now = self._loop.time()
        for queue in self._queues.values():
            if queue.waiting and (expired := queue.expire(now)):
                logger.warning("model %s: %d waiting requests were not answered in time", queue.model.name, expired)
        for worker in self._held:
            expired = sum(fail_late(request) for request in worker.held.requests if request.deadline <= now)
            if expired:
                name = worker.pool.model.name
                logger.warning("model %s: worker %d has not answered %d requests in time", name, worker.pid, expired)
        if self._held or self._busy():
            self._ticking = self._loop.call_later(_DEADLINE_TICK, self._tick)
        self._idle.set()


def _unanswered(worker: Worker) -> bool:
    """Whether somebody still waits for what a worker holds."""
    return worker.held is not None and not all(request.future.done() for request in worker.held.requests)


def _answer(part: batch.PartView) -> Answer | ModelFailed:
    """What a part of a worker's frame says. The body is copied: the channel's memory is used again."""
    if not part.meta:
        return Answer(part.code, "application/json", _NO_HEADERS, bytes(part.body))
    said: dict[str, Any] = json.loads(part.meta)
    if said["error_type"]:
        return ModelFailed(said["error_type"], said["error"], status=part.code)
    return Answer(part.code, said["content_type"], said["headers"], bytes(part.body))
