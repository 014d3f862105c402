"""What the supervisor tells of workers to whoever gives them work."""

from __future__ import annotations

from typing import Any, Protocol

from mmserve.supervision.failure import LoadFailure
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Exit, Worker
from mmserve_worker.channel import Frame


class WorkerEvents(Protocol):
    """Who is told what became of workers: the dispatcher."""

    def worker_idle(self, worker: Worker) -> None: ...

    def worker_answered(self, worker: Worker, frame: Frame) -> None: ...

    def worker_streamed(self, worker: Worker, frame: Frame) -> None: ...

    def worker_lost(self, worker: Worker, held: Any, end: Exit, *, taken: bool) -> bool: ...

    def worker_gone(self, pool: Pool) -> None: ...

    def pool_failed(self, pool: Pool, failure: LoadFailure) -> None: ...
