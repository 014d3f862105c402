"""How a worker comes up: its channel, its model's content, its process. Nothing here blocks the event loop."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Protocol

from mmserve.errors import ModelFailed, ServingError
from mmserve.models.model import Content
from mmserve.supervision.environments import Supply
from mmserve.supervision.pool import Pool
from mmserve.supervision.preparation import Preparation
from mmserve.supervision.template import Template
from mmserve.supervision.worker import Worker
from mmserve_worker.channel import Channel

logger = logging.getLogger("mmserve.supervision")


class Owner(Protocol):
    """Who is told how a start went: the lifecycle."""

    def worker_forked(self, worker: Worker) -> None: ...

    def worker_not_started(self, worker: Worker, error: ServingError | None) -> None: ...

    def content_known(self, pool: Pool) -> None: ...


class Starter:
    def __init__(self, supply: Supply, preparation: Preparation, owner: Owner, *, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._supply = supply
        self._preparation = preparation
        self._owner = owner
        self._capacity = capacity
        self._ids = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        # Those that wait for an environment, which may take minutes.
        self._waiting: dict[Worker, asyncio.Task[None]] = {}

    def start(self, pool: Pool, reason: str, content: Content | None) -> Worker:
        """A worker that is being started. Raises OSError if there is no channel to be had for it.

        Without `content` it gets what the model's source says now.
        """
        worker = Worker(next(self._ids), pool, Channel.create(self._capacity), reason, content)
        task = self._loop.create_task(self._bring_up(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return worker

    def hurry(self, worker: Worker) -> None:
        """Nobody needs it any more: if it waits for an environment, it waits no longer."""
        task = self._waiting.get(worker)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """Gives up what is being started."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._preparation.stop()

    async def _bring_up(self, worker: Worker) -> None:
        pool, model = worker.pool, worker.pool.model
        try:
            if worker.content is None:
                if pool.preparing is None:
                    pool.preparing = self._loop.create_task(self._prepare_content(pool))
                await asyncio.shield(pool.preparing)
                worker.content = model.content
            if worker.retiring:
                self._give_up(worker, None)
                return
            content = worker.content
            assert content is not None
            template = worker.template = await self._template(worker, content)
            if worker.retiring:
                self._give_up(worker, None)
                return
            worker.load(
                model.key,
                {
                    "name": model.name,
                    "directory": str(content.directory),
                    "options": dict(content.options),
                    "codeless": content.codeless,
                },
            )
            forked = await template.fork(worker.id, worker.channel.files)
        except asyncio.CancelledError:
            self._give_up(worker, None)
            raise
        except ServingError as error:
            self._give_up(worker, error)
            return
        except Exception as error:  # whatever it was, those who wait for the worker have to be told
            logger.exception("model %s: a worker could not be started", model.name)
            self._give_up(worker, ModelFailed(type(error).__name__, str(error)))
            return
        worker.forked(forked.pid, forked.pidfd)
        self._owner.worker_forked(worker)

    async def _template(self, worker: Worker, content: Content) -> Template:
        """The template of the environment that the model runs in. One that has to be made first may come too late."""
        if content.requirements is None:
            return await self._supply.take(None)
        task = asyncio.current_task()
        assert task is not None
        limit = worker.pool.settings.model_loading_timeout
        self._waiting[worker] = task
        try:
            async with asyncio.timeout(limit):
                return await self._supply.take(content.requirements)
        except TimeoutError:
            raise ModelFailed(
                "EnvironmentNotReadyException",
                f"The environment of the model's requirements.txt is still being made after {limit:g} seconds "
                "(model_loading_timeout). That goes on: try again later.",
            ) from None
        finally:
            del self._waiting[worker]

    async def _prepare_content(self, pool: Pool) -> None:
        """For all workers of a pool that are being started."""
        try:
            pool.model.content = await self._preparation.prepare(pool.model)
        finally:
            pool.preparing = None
        self._owner.content_known(pool)

    def _give_up(self, worker: Worker, error: ServingError | None) -> None:
        worker.never_started()
        self._owner.worker_not_started(worker, error)
