"""Which waiting request goes to which free worker, and which answer to whom.

Knows Request objects, queues and workers; neither HTTP nor processes. A free worker takes what is waiting, at once,
unless more models want a CPU than there are: then share.py says whose turn it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mmserve.errors import PayloadTooLarge, QueueFull, Stopping
from mmserve.models.model import Model
from mmserve.observability.stats import ModelStats
from mmserve.scheduling import losses
from mmserve.scheduling.answers import answers_of, batch_of, deliver, read_streamed
from mmserve.scheduling.draining import Draining
from mmserve.scheduling.lateness import Lateness
from mmserve.scheduling.queue import Batch, ModelQueue
from mmserve.scheduling.request import Request
from mmserve.scheduling.share import CpuShare
from mmserve.supervision.failure import LoadFailure
from mmserve.supervision.pool import Pool
from mmserve.supervision.supervisor import Supervisor
from mmserve.supervision.worker import Exit, Worker
from mmserve_worker import batch
from mmserve_worker.channel import Frame, FrameTooLarge, Kind


class Dispatcher:
    """The queues of all models that have been asked for, and the batches that workers hold."""

    def __init__(
        self, supervisor: Supervisor, *, capacity: int, slots: int, stats_of: Callable[[str], ModelStats]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self._capacity = capacity
        self._stats_of = stats_of
        self._share: CpuShare[ModelQueue, Worker] = CpuShare(slots)
        self._queues: dict[int, ModelQueue] = {}
        # Queues with something to dispatch at the end of this turn of the event loop.
        self._due: list[ModelQueue] = []
        self._held: set[Worker] = set()
        self._batch_ids = 0
        self._draining = Draining(self._queues, self._held)
        self._lateness = Lateness(self._queues, self._held, supervisor, self._draining.note)
        self._line_timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def queues(self) -> list[ModelQueue]:
        return [*self._queues.values()]

    def queue(self, model: Model) -> ModelQueue:
        queue = self._queues.get(model.key)
        if queue is None:
            pool = self._supervisor.pool(model, self._stats_of(model.name))
            queue = self._queues[model.key] = ModelQueue(model, pool)
        return queue

    def forget(self, model: Model) -> None:
        self._queues.pop(model.key, None)

    def submit(self, queue: ModelQueue, request: Request) -> None:
        """Accepts a request, whose future will be answered; or raises a ServingError at once."""
        if self._stopping:
            raise Stopping
        pool = queue.pool
        now = time.monotonic()
        if pool.failure is not None and pool.failures.blocks(now) and not pool.serving:
            raise pool.failure.error()
        waiting = len(queue.waiting)
        if waiting >= pool.settings.job_queue_size:
            raise QueueFull(
                f"{waiting} requests wait for model {queue.model.name}, as many as its job_queue_size allows."
            )
        request.queued_at = now
        queue.put(request)
        if not pool.workers or not (waiting or pool.idle or pool.serving):
            # Only now that the request waits: it is told if no worker can be had.
            self._supervisor.wake(pool)
        elif pool.idle:
            if not queue.due:
                # Not at once: what else has arrived in this turn of the event loop makes a batch with it.
                queue.due = True
                if not self._due:
                    self._loop.call_soon(self._dispatch_due)
                self._due.append(queue)
        elif waiting == queue.long:
            self._supervisor.reconcile(pool)
        if self._lateness.resting:
            self._lateness.watch()

    def withdraw(self, queue: ModelQueue, request: Request) -> None:
        """The caller has gone: its request goes too, unless a worker already has it."""
        if request in queue.waiting:
            queue.waiting.remove(request)

    async def drain(self, timeout: float) -> bool:
        """Accepts nothing more and finishes what was accepted. Says False if that took too long."""
        self._stopping = True
        return await self._draining.finish_all(timeout)

    async def settle(self, queue: ModelQueue, timeout: float) -> None:
        """Waits until a queue, to which nothing is submitted any more, is empty and its batches are answered."""
        await self._draining.finish(queue, timeout)

    def worker_idle(self, worker: Worker) -> None:
        self._dispatch(self._queues[worker.pool.model.key], time.monotonic())
        self._dispatch_line()

    def worker_answered(self, worker: Worker, frame: Frame) -> None:
        held = batch_of(worker, frame)
        answers = answers_of(held, frame)
        worker.channel.release()
        requests = held.requests[held.answered : held.answered + len(answers)]
        held.answered += len(answers)
        if held.answered < len(held.requests):
            # The worker may be waiting for room for the rest.
            worker.channel.send(Kind.ACKNOWLEDGE)
            deliver(requests, answers)
            self._draining.note()
            return
        try:
            # Before the answers go out, so that the worker has its next batch while they do.
            self._finished(worker, held, frame.time)
        finally:
            deliver(requests, answers)
            self._draining.note()

    def worker_streamed(self, worker: Worker, frame: Frame) -> None:
        """A frame of an answer that comes in pieces."""
        held = batch_of(worker, frame)
        self._queues[worker.pool.model.key].streams = True
        read_streamed(worker, held, frame)
        if held.answered == len(held.requests):
            self._finished(worker, held, frame.time)
        elif frame.kind == Kind.STREAM_END:
            # The worker may be waiting for room for the next one.
            worker.channel.send(Kind.ACKNOWLEDGE)
        self._draining.note()

    def worker_lost(self, worker: Worker, held: Batch, end: Exit, *, taken: bool) -> bool:
        """Tries once more, one by one, what a dead worker had taken; but not what another has died of before.

        Says whether any of it had never been lost before.
        """
        queue = self._queues[worker.pool.model.key]
        self._held.discard(worker)
        self._share.ended(worker, queue, 0.0)
        if held.stream is not None and held.stream.running:
            held.stream.end(f"The worker {end}.")
        again, news = losses.sort_out(held.requests[held.answered :], end, taken=taken)
        queue.give_back(again)
        # To another worker if there is one; otherwise `worker_gone` sees to them.
        self._dispatch(queue, time.monotonic())
        self._dispatch_line()
        self._draining.note()
        return news

    def worker_gone(self, pool: Pool) -> None:
        """A worker has ended, perhaps because fewer were asked for: what still waits needs one."""
        queue = self._queues.get(pool.model.key)
        if queue is not None and queue.waiting and not pool.serving:
            if pool.failure is not None and pool.failures.blocks(time.monotonic()):
                self.pool_failed(pool, pool.failure)
            else:
                self._supervisor.wake(pool)
        self._draining.note()

    def pool_failed(self, pool: Pool, failure: LoadFailure) -> None:
        """No worker could be had: those who wait for one are told why."""
        queue = self._queues.get(pool.model.key)
        if queue is not None:
            for request in queue.waiting:
                request.fail(failure.error())
            queue.waiting.clear()
        self._draining.note()

    def _finished(self, worker: Worker, held: Batch, seconds: float) -> None:
        """The worker has answered all of its batch."""
        now = time.monotonic()
        queue = self._queues[worker.pool.model.key]
        self._held.discard(worker)
        worker.vacate(held.answered, seconds)
        queue.note(seconds)
        worker.pool.note_service(now - worker.sent_at)
        self._share.ended(worker, queue, seconds if queue.long_batches else 0.0)
        if self._supervisor.free(worker, now):
            self._dispatch(queue, now)
        if self._share.line:
            self._dispatch_line()

    def _dispatch_due(self) -> None:
        due, self._due = self._due, []
        now = time.monotonic()
        for queue in due:
            queue.due = False
            self._dispatch(queue, now)

    def _dispatch_line(self) -> None:
        """Lets in who stands in line, as far as there are CPUs for them."""
        if self._line_timer is not None:
            self._line_timer.cancel()
            self._line_timer = None
        while (queue := self._share.next(now := time.monotonic())) is not None:
            self._dispatch(queue, now, admitted=True)
        self._watch_line()

    def _watch_line(self) -> None:
        """Comes back when who runs has done so for long enough that the next in line may go."""
        due = self._share.due()
        if due is not None and self._line_timer is None:
            self._line_timer = self._loop.call_at(due, self._dispatch_line)

    def _dispatch(self, queue: ModelQueue, now: float, *, admitted: bool = False) -> None:
        """Gives waiting requests to idle workers. `admitted` is for the first of the batches."""
        pool = queue.pool
        idle = pool.idle
        while idle and queue.waiting:
            if self._delayed(queue, now):
                return
            crowded = not admitted and queue.long_batches and not self._share.has_room(queue, now)
            if crowded and not pool.is_waiting(now):
                self._share.line_up(queue)
                self._watch_line()
                return
            admitted = False
            taken = queue.take(self._capacity)
            taken.requests = [request for request in taken.requests if not request.future.done()]
            if taken.requests:
                self._send(idle.pop(), queue, taken)

    def _delayed(self, queue: ModelQueue, now: float) -> bool:
        """Whether the model asks to wait for a fuller batch, and there is still time to."""
        settings = queue.pool.settings
        if queue.delay is not None:
            queue.delay.cancel()
            queue.delay = None
        if not settings.max_batch_delay or queue.streams or len(queue.waiting) >= settings.batch_size:
            return False
        first = queue.waiting[0]
        # With half of its time left for its answer, whatever delay was asked for.
        due = min(first.queued_at + settings.max_batch_delay, (first.queued_at + first.deadline) / 2)
        if due <= now or first.deaths:
            return False
        queue.delay = self._loop.call_at(due, self._delay_is_over, queue)
        return True

    def _delay_is_over(self, queue: ModelQueue) -> None:
        self._dispatch(queue, time.monotonic())

    def _send(self, worker: Worker, queue: ModelQueue, taken: Batch) -> None:
        assert worker.content is not None
        with_headers = worker.content.has_code
        parts = [(0, request.meta(with_headers=with_headers), request.body) for request in taken.requests]
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
            time=max([request.deadline for request in taken.requests]),
        )
        now = time.monotonic()
        worker.occupy(taken, now)
        queue.pool.stats.dispatched(taken.requests, now)
        if queue.long_batches and not queue.pool.waits:
            self._share.started(worker, queue, now)
        self._held.add(worker)

    def _send_less(self, queue: ModelQueue, requests: list[Request], error: FrameTooLarge) -> None:
        half = len(requests) // 2
        if half:
            queue.give_back(requests[half:])
            self._send(queue.pool.idle.pop(), queue, Batch(requests[:half]))
        else:
            requests[0].fail(PayloadTooLarge(f"The request is too large with its headers: {error}."))
