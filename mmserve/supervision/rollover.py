"""Newer files under the same name: noticed, tried out beside the running workers, and taken over once they load.

    source changed ──► the same at the next look ──► unpacked ──► one worker with it ──► loaded: takes over
                                                        └──────────────┴──► fails: what runs goes on

From then on the others are replaced one by one, each as there is room for it. What does not load is not tried again
until it changes; a trial that ended in any other way may have been killed by anything and is tried again later.
Only models that have workers are looked at; a sleeping one reads its source when it wakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from mmserve.backoff import Backoff
from mmserve.errors import CacheUnwritable, DiskFull, ModelFailed, ServingError, StoreUnavailable
from mmserve.models.model import Content
from mmserve.models.source import Fingerprint
from mmserve.observability.events import EventLog
from mmserve.supervision.lifecycle import Lifecycle
from mmserve.supervision.pool import Pool
from mmserve.supervision.room import Room
from mmserve.supervision.worker import Worker

logger = logging.getLogger("mmserve.supervision")

# Sources looked at before the other work of the thread pool is let in between.
_AT_ONCE = 500
# Seconds between two looks at replacements that have come to a halt.
_ROUND = 1.0
# Who operates the server is told of a replacement for which there was no room so many times in a row.
_TELL = 5
# For newer files whose trial has ended for a reason of which they say nothing.
_BACKOFF = Backoff(first=2.0, longest=300.0)


@dataclass(frozen=True, slots=True)
class _Postponed:
    """Newer files that are not tried again before `retry_at` (monotonic)."""

    seen: Fingerprint
    attempts: int
    retry_at: float


class Rollover:
    """Looks every `interval` seconds. `reconcile` is told of a pool whose settings have changed with its files, and
    each worker waits for its `room`."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        log: EventLog,
        reconcile: Callable[[Pool], None],
        room: Room,
        *,
        interval: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._log = log
        self._reconcile = reconcile
        self._room = room
        self._interval = interval
        # What was seen of a source that had changed: it may still be being written.
        self._seen: dict[Pool, Fingerprint] = {}
        # What did not load.
        self._rejected: dict[Pool, Fingerprint] = {}
        self._postponed: dict[Pool, _Postponed] = {}
        # Those of which a worker is still to be replaced, and how often in a row there was no room for the new one.
        self._under_way: dict[Pool, int] = {}
        self._stopped = False
        # Why the newer files that were tried last do not serve.
        self._reasons: dict[Pool, str] = {}
        self._due = asyncio.Event()
        # Held by who decides about a model's newer files. A second trial would make the first one look like a worker
        # of the model's, whose requests are told if it does not load.
        self._turns: WeakKeyDictionary[Pool, asyncio.Lock] = WeakKeyDictionary()

    def hurry(self) -> None:
        """Something has changed: it is looked at once."""
        self._due.set()

    async def refresh(self, pool: Pool) -> bool:
        """Looks at one model at once, and says whether there were newer files, once these have taken over.

        They are taken as they are, also those that have failed before. Raises ServingError with what is wrong.
        """
        async with self._turn(pool):
            return await self._refresh(pool)

    async def _refresh(self, pool: Pool) -> bool:
        while pool.candidate is not None and not pool.retired:
            await pool.changed.wait()
        for noted in (self._seen, self._rejected, self._postponed, self._reasons):
            noted.pop(pool, None)
        model, old = pool.model, pool.model.content
        seen = await asyncio.to_thread(model.source.fingerprint)
        if old is None or seen == old.fingerprint:
            return False
        if not pool.ready:
            # Whoever wakes it reads them anyway: what is wrong with them is told now.
            new = await self._lifecycle.prepare(model)
            if model.content is old:
                model.content = new
                pool.refresh_settings()
            return new.version != old.version
        await self._replace(pool, old, seen)
        candidate = pool.candidate
        while candidate is not None and pool.candidate is candidate and not pool.retired:
            await pool.changed.wait()
        if pool in self._reasons:
            raise ModelFailed("ReplacementFailedException", self._reasons.pop(pool))
        return model.content is not None and model.content.version != old.version

    async def run(self, pools: Callable[[], Iterable[Pool]]) -> None:
        """Looks for as long as the server runs, and goes on with what was found also while a store does not answer."""
        try:
            await asyncio.gather(self._look_on(pools), self._go_round())
        finally:
            self._stopped = True

    async def _look_on(self, pools: Callable[[], Iterable[Pool]]) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._due.wait()
            self._due.clear()
            watched = [pool for pool in pools() if pool.ready and pool.candidate is None]
            for gone in self._seen.keys() - set(watched):
                del self._seen[gone]
            for start in range(0, len(watched), _AT_ONCE):
                try:
                    await self._look(watched[start : start + _AT_ONCE])
                except Exception:  # whatever it was, the next look is due
                    logger.exception("looking for newer files has failed")

    async def _go_round(self) -> None:
        while True:
            await asyncio.sleep(_ROUND)
            for pool in list(self._under_way):
                try:
                    self.go_on(pool)
                except Exception:  # whatever it was, the others are to be replaced too
                    logger.exception("model %s: its replacement has failed", pool.model.name)

    def forget(self, pool: Pool) -> None:
        self._seen.pop(pool, None)
        self._rejected.pop(pool, None)
        self._postponed.pop(pool, None)
        self._under_way.pop(pool, None)
        self._reasons.pop(pool, None)

    def loaded(self, worker: Worker) -> None:
        """A worker is ready: if it is the one with the newer files, these are the model's from now on."""
        pool = worker.pool
        if worker.is_trial:
            pool.model.content, pool.candidate = pool.candidate, None
            self._postponed.pop(pool, None)
            pool.refresh_settings()
            older = len(pool.outdated)
            self._log.add("model_replaced", pool.model.name, "newer files", level=logging.INFO, workers=older)
            self._reconcile(pool)
        outdated = pool.outdated
        if not outdated or pool.retired:
            return
        self._under_way.setdefault(pool, 0)
        if not worker.is_outdated and not worker.retiring:
            self._lifecycle.retire(outdated[0], "new_version")
        self.go_on(pool)

    def failed(self, worker: Worker, reason: str, *, for_good: bool = False) -> None:
        """The worker with the newer files does not serve; those that do are not touched.

        Only if these files themselves do not load, that is `for_good`.
        """
        content, worker.pool.candidate = worker.pool.candidate, None
        assert content is not None
        if for_good:
            self._reject(worker.pool, content.fingerprint, reason)
        else:
            self._postpone(worker.pool, content.fingerprint, reason)

    def go_on(self, pool: Pool, *, has_room: bool = False) -> bool:
        """Starts the next worker of a replacement, unless there is one on its way. Says whether it did.

        With `has_room` it need not ask for that any more.
        """
        if pool not in self._under_way or self._stopped:
            return False
        now = time.monotonic()
        candidate, outdated = pool.candidate, pool.outdated
        if candidate is not None and not pool.ready and not any(worker.is_trial for worker in pool.workers):
            # Those beside which it was to be tried have gone: whoever comes next reads the source anyway.
            candidate = pool.candidate = None
        if candidate is None and not outdated:
            del self._under_way[pool]
            return False
        if any(worker.is_trial or worker.is_next for worker in pool.workers):
            return False
        if candidate is None and pool.failures.blocks(now):
            return False
        if not (has_room or self._room.make(pool, now)):
            self._make_way(pool, outdated)
            return False
        self._under_way[pool] = 0
        return self._start(pool)

    async def _look(self, pools: list[Pool]) -> None:
        found = await asyncio.to_thread(lambda: [pool.model.source.fingerprint() for pool in pools])
        for pool, now in zip(pools, found, strict=True):
            content = pool.model.content
            if not now or content is None or now in (content.fingerprint, self._rejected.get(pool)):
                self._seen.pop(pool, None)
            elif self._is_postponed(pool, now) or self._turn(pool).locked():
                continue
            elif self._seen.get(pool) != now and not pool.model.source.changes_at_once:
                self._seen[pool] = now
            else:
                self._seen.pop(pool, None)
                async with self._turn(pool):
                    await self._replace(pool, content, now)

    async def _replace(self, pool: Pool, old: Content, seen: Fingerprint) -> None:
        try:
            new = await self._lifecycle.prepare(pool.model)
        except (StoreUnavailable, DiskFull, CacheUnwritable) as error:
            self._postpone(pool, seen, str(error))
            return
        except ServingError as error:
            self._reject(pool, seen, str(error))
            return
        if pool.model.content is not old or pool.candidate is not None or pool.retired or not pool.ready:
            # It has come up anew meanwhile, with what the source says, or will.
            return
        if new.version == old.version:
            # The same archive, copied once more.
            pool.model.content = new
            return
        pool.candidate = new
        self._under_way[pool] = 0
        self.go_on(pool)

    def _start(self, pool: Pool) -> bool:
        try:
            self._lifecycle.start(pool, "new_version", pool.candidate or pool.model.content)
        except OSError as error:
            reason = f"no channel for a worker: {error.strerror}"
            candidate, pool.candidate = pool.candidate, None
            if candidate is not None:
                self._postpone(pool, candidate.fingerprint, reason)
            else:
                logger.warning("model %s: %s; older workers stay until there is one", pool.model.name, reason)
            return False
        return True

    def _make_way(self, pool: Pool, outdated: list[Worker]) -> None:
        """There is no room for one more beside those that run: one of them goes first, but never the last."""
        refused = self._under_way[pool] = self._under_way[pool] + 1
        if refused == _TELL:
            logger.warning("model %s: its newer files wait. %s", pool.model.name, self._room.shortage_of(pool))
        if pool.ready < 2 or any(worker.is_going for worker in pool.workers):
            return
        if outdated:
            self._lifecycle.retire(outdated[0], "new_version")
        elif refused == 1 and pool.idle:
            # One is enough to try with. If others take its place in memory, no second one is given away.
            self._lifecycle.retire(pool.idle[0], "new_version")

    def _reject(self, pool: Pool, seen: Fingerprint, reason: str) -> None:
        if pool.retired or self._stopped:
            return
        self._rejected[pool] = seen
        self._reasons[pool] = reason
        self._log.add("replacement_failed", pool.model.name, reason, level=logging.WARNING)

    def _postpone(self, pool: Pool, seen: Fingerprint, reason: str) -> None:
        if pool.retired or self._stopped:
            return
        self._reasons[pool] = reason
        before = self._postponed.get(pool)
        attempts = before.attempts + 1 if before is not None and before.seen == seen else 1
        seconds = _BACKOFF.after(attempts)
        self._postponed[pool] = _Postponed(seen, attempts, time.monotonic() + seconds)
        reason = f"{reason.rstrip('.')}. It is tried again in {seconds:.0f} s."
        self._log.add("replacement_failed", pool.model.name, reason, level=logging.WARNING, attempts=attempts)

    def _turn(self, pool: Pool) -> asyncio.Lock:
        return self._turns.setdefault(pool, asyncio.Lock())

    def _is_postponed(self, pool: Pool, seen: Fingerprint) -> bool:
        postponed = self._postponed.get(pool)
        return postponed is not None and postponed.seen == seen and time.monotonic() < postponed.retry_at
