"""An answer that comes in pieces, sent as they are made.

    worker ── STREAM: status, headers, first piece ──► PIECE ──► PIECE ──► ... ──► STREAM_END ──► front
    worker ◄── ACKNOWLEDGE for each piece that its caller has taken, CANCEL when there is no caller any more ── front

The worker is never further ahead than STREAM_WINDOW pieces: where the caller is slow, the generator waits. Where the
caller has gone, it is closed. If it raises, STREAM_END says so, and the answer is cut off instead of ended.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Generator, Iterator

from mmserve_worker import batch
from mmserve_worker.batch import STREAM_WINDOW
from mmserve_worker.calls import Buffer
from mmserve_worker.channel import Channel, ChannelFull, Frame, Kind
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, one_line

logger = logging.getLogger("mmserve.worker")

# Bytes of one frame; what a model yields may be larger. With the window, what the front holds of a stream.
_LARGEST_PIECE = 128 * 1024


class StreamSender:
    """Sends one streamed answer: the one to the call with this `index` in the batch that a frame has brought."""

    def __init__(self, channel: Channel, frame: Frame, index: int) -> None:
        self._channel = channel
        self._batch_id, self._model_key, self._index = frame.batch_id, frame.model_key, index
        # Pieces that were sent and not taken.
        self._ahead = 0
        self._cancelled = False
        # Seconds that were spent waiting for the caller.
        self._waited = 0.0

    def send(self, head: batch.Part, stream: Generator[bytes], seconds: float) -> float:
        """Returns the seconds that the batch took the model so far, of which `seconds` were before this."""
        began = time.monotonic()
        status, meta, body = head
        assert not isinstance(body, tuple)
        first, *others = _slices(body)
        self._publish(Kind.STREAM, (status, meta, first))
        error = self._send_pieces(itertools.chain(others, stream)) or self._close(stream)
        seconds += time.monotonic() - began - self._waited
        self._publish(Kind.STREAM_END, error.encode(errors="replace"), seconds)
        return seconds

    def _send_pieces(self, pieces: Iterator[Buffer]) -> str:
        """Returns what went wrong, if anything did."""
        try:
            for piece in pieces:
                for part in _slices(piece):
                    self._wait_for_caller()
                    if self._cancelled:
                        return ""
                    self._publish(Kind.PIECE, part)
                    self._ahead += 1
        except RAISED_BY_MODELS as error:
            # It is this answer's failure and nobody else's.
            logger.error("a stream raised after its first piece", exc_info=error)
            return f"{type(error).__name__}: {one_line(error)}"
        return ""

    def _close(self, stream: Generator[bytes]) -> str:
        try:
            stream.close()
        except RAISED_BY_MODELS as error:
            # The model's own code again. Whatever it says now, its caller has all pieces or has gone.
            logger.error("a stream raised when it was closed", exc_info=error)
        return ""

    def _wait_for_caller(self) -> None:
        if self._channel.has_received():
            self._receive()
        if self._ahead >= STREAM_WINDOW and not self._cancelled:
            began = time.monotonic()
            while self._ahead >= STREAM_WINDOW and not self._cancelled:
                self._receive()
            self._waited += time.monotonic() - began

    def _receive(self) -> None:
        for frame in self._channel.receive():
            self._channel.release()
            # What was said of an earlier answer may come late.
            if frame.batch_id == self._batch_id and frame.parts == self._index:
                if frame.kind == Kind.CANCEL:
                    self._cancelled = True
                else:
                    self._ahead -= 1

    def _publish(self, kind: Kind, content: batch.Part | Buffer, seconds: float = 0.0) -> None:
        while True:
            try:
                if isinstance(content, tuple):
                    batch.write(self._channel, [content])
                else:
                    self._channel.reserve(len(content))[:] = content
                break
            except ChannelFull:
                self._receive()
        self._channel.send(kind, batch_id=self._batch_id, model_key=self._model_key, parts=self._index, time=seconds)


def _slices(piece: Buffer) -> list[Buffer]:
    if len(piece) <= _LARGEST_PIECE:
        return [piece]
    view = memoryview(piece)
    return [view[start : start + _LARGEST_PIECE] for start in range(0, len(view), _LARGEST_PIECE)]
