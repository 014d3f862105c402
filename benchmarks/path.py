"""What each step of a request's way costs: microseconds of one process that does nothing else, so all caches are warm.

In a server at work the same steps take two to three times as long: each process has slept before, and others have used
the caches meanwhile. What is missing here is what cannot be taken apart: uvloop, the kernel's wake-ups and the network.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

from benchmarks import models
from benchmarks.report import Row
from benchmarks.rounds import Progress
from mmserve.http.connection import END
from mmserve.http.plain import written_answer
from mmserve.scheduling.request import read_answer
from mmserve_worker import batch, handlers, warming
from mmserve_worker.calls import Call, ModelSpec
from mmserve_worker.channel import Channel, ChannelFiles, Frame, Kind, create

_BATCHES = (1, 16)
_REPEATS = 300
_CAPACITY = 1024 * 1024
_REQUEST = (
    b"POST /predictions/shop-00001 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(models.BODY), models.BODY)
)


def run(directory: Path, progress: Progress) -> list[Row]:
    with _exchanging() as exchange:
        calls = _median(exchange)
    rows = [
        Row("path: parse a request", _median(_parsing()), "us"),
        Row("path: know a head again instead", _median(_knowing()), "us"),
        Row("path: send and receive by TCP, system calls alone", calls, "us"),
    ]
    joblib.dump(models.linear(1.0), directory / "model.joblib")
    handler = handlers.load(ModelSpec("path", str(directory)))
    predict = joblib.load(directory / "model.joblib").predict
    one = np.full((1, 1), 0.5)
    rows.append(Row("path: a predict of one row as scikit-learn has it", _median(lambda: predict(one)), "us"))
    # What all workers get from their template.
    warming.warm_up()
    for size in _BATCHES:
        progress.doing(f"batches of {size}")
        rows += _steps(handler, predict, size)
    return rows


def _steps(handler: Any, predict: Callable[[Any], Any], size: int) -> list[Row]:
    front, worker = _ends()
    calls: list[batch.Part] = [(0, b"", models.BODY)] * size
    matrix = np.full((size, 1), 0.5)
    frames: list[Frame] = []
    parts: list[batch.Part] = []

    def submit() -> None:
        batch.write(front, calls)
        front.send(Kind.BATCH, batch_id=1, model_key=1, parts=size)

    def take() -> None:
        frames[:] = worker.receive()

    def answer() -> None:
        replies = handler.answer([Call(body) for _, _, body in batch.read(frames[0].payload, size)])
        worker.release()
        parts[:] = [(reply.status, b"", reply.body) for reply in replies]

    def reply() -> None:
        batch.write(worker, parts)
        worker.send(Kind.ANSWERS, batch_id=1, model_key=1, parts=size)

    def read() -> None:
        (frame,) = front.receive()
        answers = [read_answer(part) for part in batch.read(frame.payload, size)]
        front.release()
        for each in answers:
            assert not isinstance(each, Exception)
            written_answer(each, "0123456789abcdef-1")

    taken = _medians([submit, take, answer, reply, read, lambda: predict(matrix)])
    submitting, taking, answering, replying, reading, predicting = (seconds / size for seconds in taken)
    where = f"a request in a batch of {size}"
    front.close()
    worker.close()
    return [
        Row(f"path: front to channel, {where}", submitting, "us"),
        Row(f"path: channel to worker and back, {where}", taking + replying, "us"),
        Row(f"path: the model's predict, {where}", predicting, "us"),
        Row(f"path: the handler beside it, {where}", answering - predicting, "us"),
        Row(f"path: channel to the answer's bytes, {where}", reading, "us"),
    ]


def _ends() -> tuple[Channel, Channel]:
    files = create(_CAPACITY)
    copies = ChannelFiles(*(os.dup(file) for file in files))
    return Channel(files, worker_side=False), Channel(copies, worker_side=True)


def _parsing() -> Callable[[], object]:
    loop = asyncio.new_event_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
    loop.close()

    def parse() -> None:
        [(_, payload)] = parser.feed_data(_REQUEST)[0]
        payload.read_nowait()
        parser.message_consumed()

    return parse


def _knowing() -> Callable[[], object]:
    known = {_REQUEST[: _REQUEST.find(END) + len(END)]: 0}

    def know() -> bytes:
        end = _REQUEST.find(END) + len(END)
        assert known.get(_REQUEST[:end]) is not None
        return _REQUEST[end:]

    return know


@contextmanager
def _exchanging() -> Iterator[Callable[[], object]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:

            def exchange() -> None:
                """The answer is as long as the request, or nearly."""
                client.send(_REQUEST)
                server.recv(len(_REQUEST))

            yield exchange


def _median(step: Callable[[], object]) -> float:
    return _medians([step])[0]


def _medians(steps: list[Callable[[], object]]) -> list[float]:
    """Microseconds of each of the steps, which follow each other."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(_REPEATS):
        for step, taken in zip(steps, times, strict=True):
            began = time.perf_counter()
            step()
            taken.append((time.perf_counter() - began) * 1e6)
    return [statistics.median(taken) for taken in times]
