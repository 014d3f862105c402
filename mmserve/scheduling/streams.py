"""Answers that come in pieces: between the worker that makes them and the caller who takes them.

Pieces are copied out of the channel as they come, and the worker is told of each one that was taken. It is never more
than STREAM_WINDOW pieces ahead, so a caller who reads slowly costs the front no more memory than that. Once its first
piece is out an answer cannot be tried again: what goes wrong then cuts it off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from mmserve.errors import DeadlineExceeded
from mmserve.supervision.worker import Worker
from mmserve_worker.batch import STREAM_WINDOW
from mmserve_worker.channel import ChannelError, Kind

logger = logging.getLogger("mmserve.scheduling")

# What is counted, and never sent, for a client that did not wait for its answer, or for all of it; nginx's number.
CLIENT_GONE = 499
# The same for one whose model has raised, or whose worker has ended, after the first piece.
_MODEL_FAILED = 424


class StreamCut(Exception):
    """There will be no more of an answer, although this was not its end."""


class Stream:
    """The pieces of one answer after the first. `index` is the place of its request in the batch.

    Times are monotonic, in seconds.
    """

    def __init__(self, worker: Worker, batch_id: int, index: int) -> None:
        self._worker = worker
        self._batch_id = batch_id
        self._index = index
        self._pieces: deque[bytes] = deque()
        # One was given to the caller, who has not asked for another yet.
        self._given = False
        self._news = asyncio.Event()
        self._error = ""
        self._cancelled = False
        # What a caller who takes all of it was answered with, and who is told what it counts as in the end.
        self._status = 0
        self._count: Callable[[int], None] | None = None
        # The worker has more to say.
        self.running = True
        # When the worker last sent a piece, or could begin with the next.
        self.moved_at = time.monotonic()

    @property
    def unfinished(self) -> bool:
        """Whether the worker makes pieces for somebody."""
        return self.running and not self._cancelled

    @property
    def is_full(self) -> bool:
        """Whether it is the caller who is waited for, and not the worker."""
        return self.running and len(self._pieces) + self._given >= STREAM_WINDOW

    def begin(self, status: int, count: Callable[[int], None]) -> None:
        """Somebody takes it from now on. `count` is told once what it counts as, which is known when it is over."""
        self._status, self._count = status, count

    async def next(self) -> bytes | None:
        """The next piece, once the one before it was taken; None at the end. Raises StreamCut."""
        if self._given:
            self._taken()
        while not self._pieces:
            if self._error:
                self._over(_MODEL_FAILED)
                raise StreamCut(self._error)
            if not self.running:
                self._over(self._status)
                return None
            self._news.clear()
            await self._news.wait()
        self._given = True
        return self._pieces.popleft()

    def abandon(self) -> None:
        """Whoever took it has gone. The worker is told, and goes on to its next request."""
        self._stop(CLIENT_GONE)

    def decline(self) -> None:
        """The same, where the answer is whole without the rest."""
        self._stop(self._status)

    def feed(self, piece: bytes) -> None:
        """The worker has sent a piece."""
        if len(self._pieces) >= STREAM_WINDOW:
            raise ChannelError("a stream has more pieces than were asked for")
        self.moved_at = time.monotonic()
        if not self._cancelled:
            self._pieces.append(piece)
            self._news.set()

    def end(self, error: str = "") -> None:
        """The worker has sent the last one; with an error, it was not meant to be the last."""
        self.running = False
        if error and not self._cancelled:
            self._fail(error)
        self._news.set()

    def cut(self, why: str) -> None:
        """Its caller is not to wait any longer."""
        self._fail(why)
        self._stop(DeadlineExceeded.status)
        self._news.set()

    def _fail(self, why: str) -> None:
        logger.warning("model %s: an answer is cut off after its first piece: %s", self._worker.pool.model.name, why)
        self._error = why

    def _stop(self, status: int) -> None:
        self._over(status)
        self._pieces.clear()
        if self.unfinished:
            self._tell(Kind.CANCEL)
        self._cancelled = True

    def _over(self, status: int) -> None:
        count, self._count = self._count, None
        if count is not None:
            count(status)

    def _taken(self) -> None:
        if self.is_full:
            self.moved_at = time.monotonic()
        self._given = False
        if self.unfinished:
            self._tell(Kind.ACKNOWLEDGE)

    def _tell(self, kind: Kind) -> None:
        if not self._worker.ended:
            self._worker.channel.send(kind, batch_id=self._batch_id, parts=self._index)
