"""Room in memory for one more worker: who is evicted for it, and who waits until it is there.

Those whose model has no worker are served first, then the others, each in their order. Whoever waits for more than can
be had is waited for by nobody, and nobody is evicted for it. A worker is never evicted that is in use, that its model's
`minWorkers` or `pinned` keeps, or for whose model requests wait. Memory counts as free when the process that held it
has ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mmserve.supervision.eviction import IdleWorkers, Victim
from mmserve.supervision.memory import MIB, MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Worker, WorkerState

# Seconds that a model waits for workers to become idle that could be evicted, or for the line to move. Most batches
# take milliseconds; if there is no room after this long, there is none.
PATIENCE = 1.0
# Seconds that it waits at most, however much the line moves, and however many workers come up that may be evicted then.
_LONGEST = 10.0
# Who waits is looked at until so many were found that there is not enough for.
_TRIED = 10
# Seconds after which those are looked at again that could not be evicted.
_RECALL = 1.0


@dataclass(slots=True)
class _Wait:
    """A model's place in the line."""

    since: float
    # It has no worker.
    first: bool
    # What it needs is there or may be evicted, if not now, with those before it.
    hopeful: bool = True


class Room:
    """`evict` ends an idle worker and gets the reason; `admit` is told of a pool that there is room for one worker."""

    def __init__(
        self,
        account: MemoryAccount,
        *,
        evict: Callable[[Worker, str], None],
        admit: Callable[[Pool], None],
    ) -> None:
        self.account = account
        self.idle: IdleWorkers[Worker] = IdleWorkers()
        self._evict = evict
        self._admit = admit
        self._waiting: dict[Pool, _Wait] = {}
        # Somebody was admitted; and when that, or a worker that comes up, was last seen.
        self._moved = False
        self._moved_at = 0.0
        # Bytes that have to become idle before it is worth it to look again, and that have since the last look.
        self._lacking = 0
        self._gained = 0
        self._recalled_at = 0.0

    def make(self, pool: Pool, now: float) -> bool:
        """Whether one more worker may start now. If not, the pool waits, and others are evicted for it."""
        first = not pool.serving
        wait = self._waiting.get(pool)
        if wait is not None:
            wait.first = first
            return False
        if not self._preceded(first) and self.account.admits(pool):
            return True
        self._waiting[pool] = _Wait(now, first)
        self.free(now)
        return False

    def became_idle(self, worker: Worker, now: float) -> None:
        """A worker has finished what it held, and may perhaps go."""
        self.idle.add(worker, now, worker.pool.interval)
        if self._lacking and _may_go(worker):
            self._gained += worker.memory.held
            # Not for each: this is on the way of every answer, and there may be many that wait and that are idle.
            if self._gained >= self._lacking:
                self.free(now)

    def free(self, now: float) -> None:
        """Evicts who has to go for those that wait, or because what runs has grown beyond the budget."""
        self._lacking = self._gained = 0
        if now - self._recalled_at >= _RECALL:
            self._recalled_at = now
            self.idle.recall()
        self._evict_for(None, self.account.shortage(0), now)
        needed = tried = 0
        soon: int | None = None
        for pool, wait in self._line():
            enough = not wait.first and not pool.waiting and len(pool.serving) >= pool.settings.min_workers
            if enough and pool.candidate is None and not pool.outdated:
                # Those that it has were enough meanwhile.
                del self._waiting[pool]
                continue
            estimate = self.account.estimate(pool)
            shortage = self.account.shortage(needed + estimate)
            idle = self._sum(self.idle.evictable(_others(pool)), shortage) if shortage > 0 else 0
            wait.hopeful = covered = idle >= shortage
            if not covered:
                if soon is None:
                    soon = self._sum(self._soon())
                # For a model without any worker, each that becomes idle goes, as long as they will be enough.
                coming = idle + soon if wait.first else idle
                covered = coming >= shortage
                wait.hopeful = coming >= shortage - needed
                lacking = 1 if covered else shortage - idle
                self._lacking = min(self._lacking or lacking, lacking)
                tried += 1
            if covered:
                self._evict_for(pool, shortage, now)
                needed += estimate
            if tried == _TRIED:
                return

    def serve(self) -> None:
        """Lets those in that there is room for now."""
        for pool, wait in self._line():
            if pool not in self._waiting:
                continue
            if self.account.admits(pool):
                del self._waiting[pool]
                self._moved = True
                self._admit(pool)
            elif wait.hopeful:
                return

    def review(self, now: float) -> None:
        """What is held has been looked at, and may be more or less than was thought."""
        self.free(now)
        self.serve()

    def leave(self, pool: Pool) -> None:
        self._waiting.pop(pool, None)

    def impatient(self, now: float) -> list[Pool]:
        """Those that have waited for too long; they wait no more."""
        if self._moved or self.account.coming_up:
            self._moved, self._moved_at = False, now
        for pool, wait in self._waiting.items():
            if wait.hopeful and self.account.fits(self.account.estimate(pool)):
                # It does not wait for memory, but until it is known what others hold that are loading.
                wait.since = now
        late = [pool for pool, wait in self._waiting.items() if self._is_late(wait, now)]
        for pool in late:
            del self._waiting[pool]
        return late

    def shortage_of(self, pool: Pool) -> str:
        """Why there is no room, for those who are told."""
        account = self.account
        return (
            f"No memory for one more worker of model {pool.model.name}: it needs about "
            f"{account.estimate(pool) / MIB:.0f} MiB, {account.used / MIB:.0f} of {account.budget / MIB:.0f} MiB are "
            "in use, and not enough of that by workers that are idle and may be evicted."
        )

    def _is_late(self, wait: _Wait, now: float) -> bool:
        since = max(wait.since, self._moved_at) if wait.hopeful else wait.since
        return now - since > PATIENCE or now - wait.since > _LONGEST

    def _line(self) -> list[tuple[Pool, _Wait]]:
        """Who waits, in the order in which they are served."""
        return sorted(self._waiting.items(), key=lambda item: not item[1].first)

    def _preceded(self, first: bool) -> bool:
        """Whether somebody waits who goes before one that comes now."""
        return any(wait.hopeful and wait.first >= first for wait in self._waiting.values())

    def _soon(self) -> Iterable[Worker]:
        """Those that may go when they have finished what they do."""
        for worker in [*self.idle, *self.account.coming_up]:
            if worker.state is not WorkerState.IDLE and not worker.retiring and not _is_kept(worker):
                yield worker

    def _sum(self, workers: Iterable[Worker], enough: float = math.inf) -> int:
        """Bytes that they hold, or as much as is enough of them."""
        held = 0
        for worker in workers:
            held += worker.memory.held
            if held >= enough:
                break
        return held

    def _evict_for(self, pool: Pool | None, shortage: int, now: float) -> None:
        """Evicts one after the other. `pool` is the one in whose favour."""
        may_go = _may_go if pool is None else _others(pool)
        while shortage > 0 and (victim := self.idle.victim(now, may_go)) is not None:
            shortage -= victim.worker.memory.held
            self._evict(victim.worker, self._reason(victim, pool))

    def _reason(self, victim: Victim[Worker], pool: Pool | None) -> str:
        account = self.account
        why = f"least recently used, idle for {victim.idle:.1f} s"
        if victim.interval is not None and victim.interval > victim.idle:
            why = f"comes back every {victim.interval:.1f} s, which is longer than any other was idle"
        whom = f"; for {pool.model.name}" if pool is not None else ""
        return f"{why}{whom}; {account.used / MIB:.0f} of {account.budget / MIB:.0f} MiB in use"


def _may_go(worker: Worker) -> bool:
    return worker.state is WorkerState.IDLE and not worker.pool.waiting and not _is_kept(worker)


def _others(pool: Pool) -> Callable[[Worker], bool]:
    """Those that may go for a model: not its own, which would be started again."""
    return lambda worker: worker.pool is not pool and _may_go(worker)


def _is_kept(worker: Worker) -> bool:
    pool = worker.pool
    least = pool.settings.min_workers
    # What is cheap first: most are kept for that.
    return pool.settings.pinned or len(pool.workers) <= least or len(pool.serving) <= least
