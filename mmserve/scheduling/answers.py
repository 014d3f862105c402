"""From the frames of a worker to those who wait for what they say."""

from __future__ import annotations

from collections.abc import Sequence

from mmserve.errors import ModelFailed
from mmserve.scheduling.queue import Batch
from mmserve.scheduling.request import Answer, Request, read_answer
from mmserve.scheduling.streams import Stream
from mmserve.supervision.worker import Worker
from mmserve_worker import batch
from mmserve_worker.channel import ChannelError, Frame, Kind


def batch_of(worker: Worker, frame: Frame) -> Batch:
    """What the worker holds, which the frame has to be about."""
    held: Batch = worker.held
    if held is None or frame.batch_id != held.id:
        raise ChannelError(f"answers to batch {frame.batch_id} from a worker that has batch {held and held.id}")
    return held


def answers_of(held: Batch, frame: Frame) -> list[Answer | ModelFailed]:
    """The next answers to what a worker holds."""
    left = len(held.requests) - held.answered
    if not 0 < frame.parts <= left:
        raise ChannelError(f"{frame.parts} answers to {left} requests")
    return [read_answer(part) for part in batch.read(frame.payload, frame.parts)]


def deliver(requests: Sequence[Request], answers: Sequence[Answer | ModelFailed]) -> None:
    for request, answer in zip(requests, answers, strict=True):
        if request.future.done():
            continue
        if isinstance(answer, Answer):
            request.future.set_result(answer)
        else:
            request.future.set_exception(answer)


def read_streamed(worker: Worker, held: Batch, frame: Frame) -> None:
    """A frame of an answer that comes in pieces: its first one, another, or its end."""
    if frame.kind == Kind.STREAM:
        _begin(worker, held, frame)
    elif held.stream is None or not held.stream.running:
        raise ChannelError(f"a piece of no answer for batch {frame.batch_id}")
    elif frame.kind == Kind.PIECE:
        held.stream.feed(bytes(frame.payload))
    else:
        held.stream.end(str(frame.payload, "utf-8"))
        held.answered += 1
    worker.channel.release()


def _begin(worker: Worker, held: Batch, frame: Frame) -> None:
    (part,) = batch.read(frame.payload, 1)
    answer = read_answer(part)
    request = held.requests[held.answered]
    held.stream = Stream(worker, frame.batch_id, frame.parts)
    if isinstance(answer, Answer):
        answer = answer._replace(stream=held.stream)
    if request.future.done():
        # It came too late, or its caller has gone.
        held.stream.abandon()
    deliver([request], [answer])
