"""Keeps what is served as new as its source: what S3 has is listed again and again, and whoever asks is looked for.

every s3_check_interval: listed ──► changed ──► the rollover looks at once
                            └──► gone ──► what was accepted is finished, then there is no such model
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from mmserve.errors import ModelNotFound, ServingError
from mmserve.models.registry import Registry
from mmserve.models.s3 import S3
from mmserve.models.s3_objects import S3Source
from mmserve.models.s3_store import S3Store
from mmserve.observability.events import EventLog
from mmserve.operations import Operations
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.supervision.supervisor import Supervisor

logger = logging.getLogger("mmserve")

# Of the interval: between the beginnings of two looks, so that what one finds is loaded within the interval; and at
# least between one's end and the next, whatever it took.
_EARLY, _REST = 0.8, 0.2


class Freshness:
    """`interval` in seconds."""

    def __init__(
        self,
        registry: Registry,
        operations: Operations,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        log: EventLog,
        s3: S3,
        *,
        interval: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._operations = operations
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._log = log
        self._s3 = s3
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        # Why the store could not be listed the last time; said once.
        self._refused = ""

    def start(self) -> None:
        self._s3.tell = lambda reason: self._in_loop(lambda: self._tell(reason))
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        self._s3.tell = lambda reason: None
        self._s3.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self, name: str) -> bool:
        """Looks at once for newer files, and says whether there were any, once these have taken over.

        Raises what has kept them from it.
        """
        model = await self._registry.find(name)
        if not await self._registry.in_thread(model.source.renew):
            await self._operations.lose(model)
            raise ModelNotFound(name)
        if self._registry.get(name) is not model:
            # Unregistered meanwhile.
            raise ModelNotFound(name)
        return await self._supervisor.rollover.refresh(self._dispatcher.queue(model).pool)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._check()
            except Exception:  # whatever it was, the next look is due
                logger.exception("looking for newer objects has failed")
            taken = time.monotonic() - began
            await asyncio.sleep(max(_REST, _EARLY - taken / self._interval) * self._interval)

    async def _check(self) -> None:
        store = self._registry.store
        listed = store if isinstance(store, S3Store) and await self._is_listed(store) else None
        gone = []
        for model in self._registry.models:
            source = model.source
            if not isinstance(source, S3Source) or self._s3.is_away or self._registry.get(model.name) is not model:
                continue
            if listed is not None and listed.covers(source):
                exists = bool(source.fingerprint())
            elif self._dispatcher.queue(model).pool.ready:
                # A sleeping one looks when it wakes.
                exists = await self._exists(source)
            else:
                continue
            if not exists:
                gone.append(model)
        self._supervisor.rollover.hurry()
        # Side by side: what each has accepted may take a while to finish.
        await asyncio.gather(*map(self._operations.lose, gone))

    async def _is_listed(self, store: S3Store) -> bool:
        refused = ""
        try:
            await self._registry.in_thread(store.check)
        except ServingError as error:
            refused = str(error)
        if refused and refused != self._refused and not self._s3.is_away:
            logger.warning("the model store cannot be listed; models are found by their names: %s", refused)
            self._log.add("store_not_listed", reason=refused, level=logging.WARNING)
        self._refused = refused
        return not refused

    async def _exists(self, source: S3Source) -> bool:
        """If it cannot be said, what runs goes on."""
        try:
            return await self._registry.in_thread(source.renew)
        except ServingError as error:
            logger.warning("%s cannot be looked at: %s", source.url, error)
            return True

    def _tell(self, reason: str) -> None:
        if reason:
            self._log.add("store_unavailable", reason=reason, level=logging.WARNING)
        else:
            self._log.add("store_available", level=logging.WARNING)

    def _in_loop(self, work: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)
