"""Models' content on this host: got in threads, kept while it is used, removed when the disk is needed for other.

    prepare ──► unpacked ──► a worker is started with it ──► the worker ends
       └───── asked for ─────┘└──────── in use ─────────────┘

The content of what runs is known here, on the event loop; what of it lies on the disk, and in which order it goes, is
known to the cache. A thread that removes content gets both what is in use now and since when something has been asked
for that may be in use next: in between there is nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmserve.errors import DiskFull
from mmserve.models.cached import CachedContents, Tidied
from mmserve.models.model import Content, Model
from mmserve.observability.events import EventLog
from mmserve.supervision.worker import Worker

logger = logging.getLogger("mmserve.supervision")

# Archives that are unpacked at one time.
_THREADS = 4
# Those that are got from far away at one time: most of that is waiting.
_FETCHING_THREADS = 32
# Seconds between two looks at what other servers have done to the cache, and notes of what is used.
_INTERVAL = 60.0
# Seconds between two looks whether what is too much is in use no longer.
_EXCEEDED_INTERVAL = 1.0


class Preparation:
    """`prepare` gets a model's content, blocking: it reads and unpacks files into the cache."""

    def __init__(self, prepare: Callable[[Model], Content], contents: CachedContents, log: EventLog) -> None:
        self._prepare = prepare
        self._contents = contents
        self._log = log
        # Of its own, so that large archives on slow disks hold up nothing but each other.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="prepare")
        # Apart from those, so that a store that is slow or away holds up nothing that is on this host.
        self._fetching = ThreadPoolExecutor(_FETCHING_THREADS, thread_name_prefix="fetch")
        # When each of those that are under way began (monotonic).
        self._under_way: dict[object, float] = {}
        self._workers: Collection[Worker] = ()
        self._keeping: asyncio.Task[None] | None = None
        # One at a time.
        self._tidying = asyncio.Lock()
        self._tidied_at = 0.0
        self._added = asyncio.Event()
        self._seen = 0
        self._exceeded = False

    async def prepare(self, model: Model) -> Content:
        """What a model's source says now. Raises ServingError."""
        began, me = time.monotonic(), object()
        self._under_way[me] = began
        try:
            try:
                return await self._prepared(model)
            except DiskFull:
                await self._make_room(began)
                return await self._prepared(model)
        finally:
            del self._under_way[me]
            if self._contents.added != self._seen:
                self._added.set()

    def start(self, workers: Collection[Worker]) -> None:
        """Keeps to the bound from now on. What these workers have is in use."""
        self._workers = workers
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        for threads in (self._threads, self._fetching):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        looked_at = -_INTERVAL
        while True:
            try:
                if time.monotonic() >= looked_at + _INTERVAL:
                    looked_at = time.monotonic()
                    await asyncio.to_thread(self._contents.look, self._since())
                await self._keep_to_bound()
            except Exception:  # whatever it was, the next round is due
                logger.exception("the cache of unpacked archives could not be looked at")
            try:
                async with asyncio.timeout(_EXCEEDED_INTERVAL if self._exceeded else _INTERVAL):
                    await self._added.wait()
            except TimeoutError:
                # The next round is due.
                continue

    async def _prepared(self, model: Model) -> Content:
        threads = self._threads if model.source.is_near(self._contents) else self._fetching
        return await asyncio.get_running_loop().run_in_executor(threads, self._prepare, model)

    async def _keep_to_bound(self) -> None:
        self._added.clear()
        async with self._tidying:
            self._seen = self._contents.added
            tidied = await self._tidy(halve=False)
        self._tell(tidied, "to keep to cache_size")
        exceeded = tidied.size > tidied.bound
        if exceeded and not self._exceeded:
            reason = "all content that lies in cache_dir is in use, and more than cache_size"
            self._log.add("cache_exceeded", reason=reason, level=logging.WARNING, size=tidied.size, bound=tidied.bound)
        self._exceeded = exceeded

    async def _make_room(self, began: float) -> None:
        """The disk is full: half of what is not used goes, unless that was done for another meanwhile."""
        async with self._tidying:
            if self._tidied_at < began:
                self._tell(await self._tidy(halve=True), "the disk is full")

    async def _tidy(self, *, halve: bool) -> Tidied:
        since, in_use = self._since(), self._in_use()
        tidied = await asyncio.to_thread(self._contents.tidy, in_use, since, halve=halve)
        if halve:
            self._tidied_at = time.monotonic()
        return tidied

    def _since(self) -> float:
        """What was asked for before, and is not in use, nobody is about to use."""
        return min(self._under_way.values(), default=time.monotonic())

    def _in_use(self) -> set[Path]:
        pools = {worker.pool for worker in self._workers}
        contents = {id(content): content for worker in self._workers if (content := worker.content) is not None}
        # What a pool's next worker is given while there is one that is ready.
        for pool in pools:
            contents.update((id(content), content) for content in (pool.model.content, pool.candidate) if content)
        return {content.directory for content in contents.values()}

    def _tell(self, tidied: Tidied, reason: str) -> None:
        if tidied.contents:
            self._log.add("cache_evicted", reason=reason, contents=tidied.contents, bytes=tidied.freed)
