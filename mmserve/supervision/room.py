"""Room in memory for one more worker: who is evicted for it, and who waits until it is there.

Those that wait are served in their order. A worker is never evicted that is in use, that its model's `minWorkers` or
`pinned` keeps, or for whose model requests wait. Memory counts as free when the process that held it has ended.
"""

from __future__ import annotations

from collections.abc import Callable

from mmserve.supervision.eviction import IdleWorkers, Victim
from mmserve.supervision.memory import MIB, MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Worker, WorkerState

# Seconds that a model waits for workers to become idle that could be evicted. Most batches take milliseconds; if there
# is no room after this long, there is none.
PATIENCE = 1.0


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
        # Since when they wait, in their order.
        self._waiting: dict[Pool, float] = {}

    @property
    def crowded(self) -> bool:
        """Somebody waits."""
        return bool(self._waiting)

    def make(self, pool: Pool, now: float) -> bool:
        """Whether one more worker may start now. If not, the pool waits, and others are evicted for it."""
        if not self._waiting and self.account.fits(self.account.estimate(pool)):
            return True
        self._waiting.setdefault(pool, now)
        self.free(now)
        return False

    def free(self, now: float) -> None:
        """Evicts who has to go for those that wait, or because what runs has grown beyond the budget."""
        needed = sum(map(self.account.estimate, self._waiting))
        while self.account.shortage(needed) > 0:
            victim = self.idle.victim(now, _may_go)
            if victim is None:
                return
            self._evict(victim.worker, self._reason(victim))

    def serve(self) -> None:
        """Lets those in that there is room for now."""
        while self._waiting:
            pool = next(iter(self._waiting))
            if not self.account.fits(self.account.estimate(pool)):
                return
            del self._waiting[pool]
            self._admit(pool)

    def leave(self, pool: Pool) -> None:
        self._waiting.pop(pool, None)

    def impatient(self, now: float) -> list[Pool]:
        """Those that have waited for too long; they wait no more."""
        late = [pool for pool, since in self._waiting.items() if now - since > PATIENCE]
        for pool in late:
            del self._waiting[pool]
        return late

    def shortage_of(self, pool: Pool) -> str:
        """Why there is no room, for those who are told."""
        account = self.account
        return (
            f"No memory for a worker of model {pool.model.name}: it needs about {account.estimate(pool) / MIB:.0f} "
            f"MiB, {account.used / MIB:.0f} of {account.budget / MIB:.0f} MiB are in use, and no other worker is "
            "idle and may be evicted."
        )

    def _reason(self, victim: Victim[Worker]) -> str:
        account = self.account
        why = f"least recently used, idle for {victim.idle:.1f} s"
        if victim.interval is not None and victim.interval > victim.idle:
            why = f"comes back every {victim.interval:.1f} s, which is longer than any other was idle"
        whom = f"; for {next(iter(self._waiting)).model.name}" if self._waiting else ""
        return f"{why}{whom}; {account.used / MIB:.0f} of {account.budget / MIB:.0f} MiB in use"


def _may_go(worker: Worker) -> bool:
    pool = worker.pool
    return (
        worker.state is WorkerState.IDLE
        and not pool.settings.pinned
        and not pool.waiting
        and len(pool.serving) > pool.settings.min_workers
    )
