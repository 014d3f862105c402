"""Newer files under the same name: noticed, tried out beside the running workers, and taken over once they load.

    source changed ──► the same at the next look ──► unpacked ──► one worker with it ──► loaded: takes over
                                                        └──────────────┴──► fails: what runs goes on

Only models that have workers are looked at; a sleeping one reads its source when it wakes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from mmserve.errors import ServingError
from mmserve.models.content import fingerprint
from mmserve.models.model import Content, Fingerprint
from mmserve.observability.events import EventLog
from mmserve.supervision.lifecycle import Lifecycle
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Worker

logger = logging.getLogger("mmserve.supervision")

# Sources looked at before the other work of the thread pool is let in between.
_AT_ONCE = 500


class Rollover:
    """Looks every `interval` seconds. `reconcile` is told of a pool whose settings have changed with its files."""

    def __init__(
        self, lifecycle: Lifecycle, log: EventLog, reconcile: Callable[[Pool], None], *, interval: float
    ) -> None:
        self._lifecycle = lifecycle
        self._log = log
        self._reconcile = reconcile
        self._interval = interval
        # What was seen of a source that had changed: it may still be being written.
        self._seen: dict[Pool, Fingerprint] = {}
        # What did not load.
        self._rejected: dict[Pool, Fingerprint] = {}

    async def run(self, pools: Callable[[], Iterable[Pool]]) -> None:
        """Looks for as long as the server runs."""
        while True:
            await asyncio.sleep(self._interval)
            watched = [pool for pool in pools() if pool.ready and pool.candidate is None]
            for gone in self._seen.keys() - set(watched):
                del self._seen[gone]
            for start in range(0, len(watched), _AT_ONCE):
                try:
                    await self._look(watched[start : start + _AT_ONCE])
                except Exception:  # whatever it was, the next look is due
                    logger.exception("looking for newer files has failed")

    def forget(self, pool: Pool) -> None:
        self._seen.pop(pool, None)
        self._rejected.pop(pool, None)

    def loaded(self, worker: Worker) -> None:
        """A worker is ready: if it is the one with the newer files, these are the model's from now on."""
        pool = worker.pool
        if worker.is_trial:
            pool.model.content, pool.candidate = pool.candidate, None
            pool.refresh_settings()
            older = pool.outdated
            self._log.add("model_replaced", pool.model.name, "newer files", level=logging.INFO, workers=len(older))
            for _ in older[1:]:
                self._start(pool)
            self._reconcile(pool)
        if pool.outdated and not worker.is_outdated:
            self._lifecycle.retire(pool.outdated[0], "new_version")

    def failed(self, worker: Worker, reason: str) -> None:
        """The worker with the newer files does not serve; those that do are not touched."""
        content, worker.pool.candidate = worker.pool.candidate, None
        assert content is not None
        self._reject(worker.pool, content.fingerprint, reason)

    async def _look(self, pools: list[Pool]) -> None:
        found = await asyncio.to_thread(lambda: [fingerprint(pool.model.source) for pool in pools])
        for pool, now in zip(pools, found, strict=True):
            content = pool.model.content
            if not now or content is None or now in (content.fingerprint, self._rejected.get(pool)):
                self._seen.pop(pool, None)
            elif self._seen.get(pool) != now:
                self._seen[pool] = now
            else:
                del self._seen[pool]
                await self._replace(pool, content, now)

    async def _replace(self, pool: Pool, old: Content, seen: Fingerprint) -> None:
        try:
            new = await self._lifecycle.prepare(pool.model)
        except ServingError as error:
            self._reject(pool, seen, str(error))
            return
        if pool.model.content is not old or pool.retired or not pool.ready:
            # It has come up anew meanwhile, with what the source says, or will.
            return
        if new.version == old.version:
            # The same archive, copied once more.
            pool.model.content = new
            return
        pool.candidate = new
        self._start(pool, new)

    def _start(self, pool: Pool, content: Content | None = None) -> None:
        try:
            self._lifecycle.start(pool, "new_version", content or pool.model.content)
        except OSError as error:
            if content is not None:
                pool.candidate = None
                self._reject(pool, content.fingerprint, f"no channel for a worker: {error.strerror}")

    def _reject(self, pool: Pool, seen: Fingerprint, reason: str) -> None:
        self._rejected[pool] = seen
        self._log.add("replacement_failed", pool.model.name, reason, level=logging.WARNING)
