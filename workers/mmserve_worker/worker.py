"""The worker: loads the model it is told to, then answers one batch after the other until it is told to stop.

It blocks on its channel, has no event loop and starts no thread. It ends when the front says so, and is killed by the
kernel when the front dies.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from mmserve_worker import batch, codeless, environment, handlers, learning, process
from mmserve_worker.calls import Call, CallError, Handler, ModelSpec, Reply
from mmserve_worker.channel import Channel, ChannelFiles, ChannelFull, Frame, FrameTooLarge, Kind
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, status_of, words_of
from mmserve_worker.streaming import StreamSender

logger = logging.getLogger("mmserve.worker")
# Far above any other process's, so that the kernel ends a worker before the front or the host's own services.
_OOM_SCORE = 800
_JSON = "application/json"
# Characters that are told of why a model does not load, to the front and to the log.
_LONGEST = 4096
# Bytes of a meta that is remembered. Those with headers are longer, and no two of them are alike: 256 of boto3's took
# 0.6 MB of each worker.
_LONGEST_KNOWN = 256


def main(files: ChannelFiles, front: int, nice: int) -> NoReturn:
    """The life of a worker process, entered right after the fork."""
    code = 1
    pid = os.getpid()
    try:
        process.die_with_parent(front)
        # A session of its own, so that what it starts can be ended with it.
        os.setsid()
        _ignore_stopping()
        process.close_all_but(files)
        process.become_victim(nice, _OOM_SCORE)
        process.set_title("mmserve: worker")
        gc.enable()
        _reseed()
        # A model may close what it is written to.
        logging.raiseExceptions = False
        channel = Channel(files, worker_side=True)
        # A fork that a model's code lets come back would answer in its worker's place.
        os.register_at_fork(after_in_child=channel.close)
        Worker(channel).run()
        code = 0
    except SystemExit:
        logger.error("the model's code ended its worker with sys.exit()")
    except BaseException:  # the last stop before the process ends: whatever it was belongs into the log
        logger.exception("the worker ends" if os.getpid() == pid else "a fork of the worker ends")
    finally:
        # A model may have closed them or put something else in their place.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not the way back up through the template's stack.
        os._exit(code)


def _ignore_stopping() -> None:
    """Only the front ends a worker; what a model starts can be ended as ever.

    A handler that does nothing, and not SIG_IGN, which would outlive a model's own forks and programs: the workers of
    a multiprocessing.Pool could not be terminated then.
    """
    stopping = (signal.SIGTERM, signal.SIGINT)
    for number in stopping:
        signal.signal(number, lambda *_: None)

    def as_ever() -> None:
        for number in stopping:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)

    # Whoever forks may end its child before that has come here: it would take no notice, and be waited for for ever.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, stopping),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping),
        after_in_child=as_ever,
    )


def _reseed() -> None:
    """Children of one template would otherwise all draw the same numbers; `random` sees to itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # With a number: seeding from nothing runs code that costs each worker 0.2 MB of shared pages.
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))


class Worker:
    """The models of one worker process, and the loop that answers for them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._models: dict[int, Handler] = {}
        # What is answered to callers who accept anything, where the model says it.
        self._default_accepts: dict[int, str] = {}

    def run(self) -> None:
        while True:
            for frame in self._channel.receive():
                if frame.kind == Kind.BATCH:
                    self._answer(frame)
                elif frame.kind == Kind.LOAD:
                    self._load(frame)
                elif frame.kind == Kind.STOP:
                    return
                else:
                    self._channel.release()

    def _load(self, frame: Frame) -> None:
        description = json.loads(bytes(frame.payload))
        self._channel.release()
        spec = ModelSpec(description["name"], description["directory"], description["options"])
        process.set_title(f"mmserve: worker {spec.name}")
        before = learning.baseline()
        try:
            environment.apply(spec.options)
            if description["codeless"]:
                codeless.forbid(spec.directory)
            self._models[frame.model_key] = handlers.load(spec)
        except RAISED_BY_MODELS as error:
            trace = traceback.format_exc()[-_LONGEST:]
            logger.error("model %s does not load\n%s", spec.name, trace)
            self._send_json(
                Kind.LOAD_FAILED,
                frame.model_key,
                {
                    "type": error.error_type if isinstance(error, CallError) else type(error).__name__,
                    "status": status_of(error),
                    "message": words_of(error)[:_LONGEST],
                    "traceback": trace,
                },
            )
            return
        if default_accept := spec.options.get("option.default_accept"):
            self._default_accepts[frame.model_key] = default_accept
        modules = learning.library_modules(before, spec.directory)
        self._send_json(Kind.LOADED, frame.model_key, {"modules": modules})

    def _send_json(self, kind: Kind, model_key: int, message: Mapping[str, Any]) -> None:
        payload = json.dumps(message).encode()
        self._channel.reserve(len(payload))[:] = payload
        self._channel.send(kind, model_key=model_key)

    def _answer(self, frame: Frame) -> None:
        calls = [Call(body, *_call_meta(meta)) for _, meta, body in batch.read(frame.payload, frame.parts)]
        if default_accept := self._default_accepts.get(frame.model_key):
            for call in calls:
                call.accept = default_accept if call.accept in ("", "*/*") else call.accept
        began = time.monotonic()
        if frame.time and began > frame.time:
            replies = [_too_late()] * len(calls)
        else:
            replies = self._models[frame.model_key].answer(calls)
        if len(replies) != len(calls):
            raise RuntimeError(f"the handler has given {len(replies)} replies to {len(calls)} calls")
        # Replies may be views of the payload still. The front learns of its release with the answers, and sends no
        # other payload before it has them all.
        self._channel.release()
        seconds = time.monotonic() - began
        parts: list[batch.Part] = []
        for index, reply in enumerate(replies):
            if reply.stream is None:
                parts.append(_part(reply))
            elif not self._fitting([head := _part(reply)]):
                _finish(reply.stream.close)
                parts.append(_too_large(head))
            else:
                self._send(frame, parts, seconds)
                parts = []
                seconds = StreamSender(self._channel, frame, index).send(head, reply.stream, seconds)
        self._send(frame, parts, seconds)
        for reply in replies:
            if reply.finished is not None:
                _finish(reply.finished)

    def _send(self, frame: Frame, parts: list[batch.Part], seconds: float) -> None:
        """Sends the answers in as few frames as they fit into, waiting for room between them."""
        while parts:
            count = len(parts)
            try:
                self._write(parts)
            except FrameTooLarge:
                count = self._fitting(parts)
                if count == 0:
                    parts[0] = _too_large(parts[0])
                    continue
                self._write(parts[:count])
            self._channel.send(
                Kind.ANSWERS, batch_id=frame.batch_id, model_key=frame.model_key, parts=count, time=seconds
            )
            parts = parts[count:]

    def _fitting(self, parts: list[batch.Part]) -> int:
        total = 0
        for count, (_, meta, body) in enumerate(parts):
            total += batch.body_length(body) + batch.overhead(1, len(meta))
            if total > self._channel.capacity:
                return count
        return len(parts)

    def _write(self, parts: list[batch.Part]) -> None:
        while True:
            try:
                batch.write(self._channel, parts)
                return
            except ChannelFull:
                # The front acknowledges what it has taken of this batch; it sends nothing else meanwhile.
                for _ in self._channel.receive():
                    self._channel.release()


_Meta = tuple[str, str, str, Mapping[str, str], Sequence[tuple[str, str]], str]
_USUAL_META: _Meta = ("", "", "", {}, (), "")


def _call_meta(meta: bytes) -> _Meta:
    if not meta:
        return _USUAL_META
    return _known_meta(meta) if len(meta) <= _LONGEST_KNOWN else _read_meta(meta)


@lru_cache(maxsize=256)
def _known_meta(meta: bytes) -> _Meta:
    return _read_meta(meta)


def _read_meta(meta: bytes) -> _Meta:
    said = json.loads(meta)
    return (
        said.get("content_type", ""),
        said.get("accept", ""),
        said.get("method", ""),
        said.get("headers", {}),
        said.get("query", ()),
        said.get("request_id", ""),
    )


def _part(reply: Reply) -> batch.Part:
    meta = b""
    if reply.content_type != _JSON or reply.headers or reply.error_type:
        meta = json.dumps(
            {
                "content_type": reply.content_type,
                "headers": dict(reply.headers),
                "error_type": reply.error_type,
                "error": reply.error,
            }
        ).encode()
    return reply.status, meta, reply.body


def _finish(finished: Callable[[], object]) -> None:
    try:
        finished()
    except RAISED_BY_MODELS:
        # The model's own code. The answer has been sent: what is cleaned up after it cannot take it back.
        logger.exception("what a model does after an answer raised")


def _too_late() -> Reply:
    return CallError(504, "DeadlineExceededException", "the deadline passed before the model was called").reply()


def _too_large(part: batch.Part) -> batch.Part:
    _, meta, body = part
    size = f"{batch.body_length(body)} bytes and headers of {len(meta)}"
    message = f"the model's answer has {size}, which max_request_size does not allow"
    return _part(CallError(424, "ResponseTooLargeException", message).reply())
