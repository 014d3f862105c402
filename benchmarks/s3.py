"""A multi-model endpoint as its owners have it, an S3 prefix and boto3 as it comes, pointed at mmserve.

Every model is another one, and every answer is looked at. What boto3 itself takes is measured beside it: the same call
of a server that answers a constant.
"""

from __future__ import annotations

import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks import sample, servers
from benchmarks.bucket import NAME, Bucket, bucket
from benchmarks.report import Row, percentile
from benchmarks.rounds import Progress
from benchmarks.servers import Address, MmServe
from tests.credentials import NOBODY

MODELS = 1000
_PREFIX = "djl-mme-sklearn-regression"
# Calls of one sleeping model at one time.
_CALLERS = 500
# Calls of one model that is awake, by turns with the constant.
_WARM = 200
_TURNS = 5
# Callers of a model whose object is replaced; seconds before and after; seconds between two looks at S3.
_UNDER_LOAD = 4
_BEFORE = 2.0
_INTERVAL = 5.0
_AFTER = 3.0
# What one caller of a burst waits for.
_TIMEOUT = 120.0


def run(directory: Path, progress: Progress) -> list[Row]:
    with bucket() as models:
        progress.doing(f"uploading {MODELS:,} models")
        for number in range(MODELS):
            models.put(_key(number), sample.archive(number))
        models.put(_key("crowded"), sample.archive(0, {"maxWorkers": "1"}))
        rows = []
        with _server(directory, models) as server, _client(server.inference) as client:
            rows += _cold(client, progress)
            rows += _warm(client, progress)
            rows += _crowd(server, models, progress)
            rows += _replaced(client, models, progress)
            models.leave()
            progress.doing("asking all of them again, without S3")
            rows.append(Row("s3: S3 is away: failed requests", *_failed(_ask_all(client))))
        with _server(directory, models) as server, _client(server.inference) as client:
            progress.doing("asking all of them again, without S3 after a restart")
            rows.append(Row("s3: the same after a restart", *_failed(_ask_all(client))))
    return rows


def _key(name: object) -> str:
    return f"{_PREFIX}/sklearn-{name}.tar.gz"


@contextmanager
def _server(directory: Path, models: Bucket) -> Iterator[MmServe]:
    with servers.mmserve(
        directory,
        f"s3://{NAME}/{_PREFIX}/",
        models.environment(),
        s3_endpoint_url=models.url(),
        s3_check_interval=_INTERVAL,
    ) as server:
        server.wait_for_template()
        yield server


@contextmanager
def _client(address: Address) -> Iterator[Any]:
    """In its default configuration; the rest is what the environment would say."""
    client = boto3.client("sagemaker-runtime", endpoint_url=address.url, **NOBODY)
    try:
        yield client
    finally:
        client.close()


def _ask(client: Any, name: object) -> float:
    answer = client.invoke_endpoint(
        EndpointName="mmserve", TargetModel=f"sklearn-{name}.tar.gz", ContentType="application/json", Body=sample.BODY
    )
    return float(json.loads(answer["Body"].read()))


@dataclass(slots=True)
class _Asked:
    """Milliseconds of each right answer, and how many were none."""

    times: list[float] = field(default_factory=list)
    failed: int = 0
    said: str = ""

    def ask(self, client: Any, name: object, expected: float) -> None:
        started = time.perf_counter()
        try:
            answer = _ask(client, name)
        except (BotoCoreError, ClientError) as error:
            self.failed += 1
            self.said = self.said or str(error)
            return
        took = (time.perf_counter() - started) * 1000
        if not math.isclose(answer, expected):
            self.failed += 1
            self.said = self.said or f"{answer} instead of {expected}"
            return
        self.times.append(took)


def _ask_all(client: Any) -> _Asked:
    asked = _Asked()
    for number in range(MODELS):
        asked.ask(client, number, sample.answer(number))
    return asked


def _failed(asked: _Asked) -> tuple[float, str, float]:
    """The figure, unit and limit of a row for which every failure counts."""
    return asked.failed, f"of {asked.failed + len(asked.times):,}", 0


def _cold(client: Any, progress: Progress) -> list[Row]:
    progress.doing(f"asking {MODELS:,} models that only S3 has, one after another")
    asked = _ask_all(client)
    if asked.failed:
        progress.say(f"{asked.failed} failed, first: {asked.said}")
    progress.say(f"first requests from {min(asked.times, default=0):.0f} to {max(asked.times, default=0):.0f} ms")
    return [
        Row("s3: models of the sample that answer boto3", len(asked.times), "", MODELS, more_is_better=True),
        Row("s3: first request with its download, p50", percentile(asked.times, 50), "ms", 150),
        Row("s3: the same, p99", percentile(asked.times, 99), "ms"),
    ]


def _warm(client: Any, progress: Progress) -> list[Row]:
    """By turns, for the same mood of the host."""
    ours: list[float] = []
    constant: list[float] = []
    with servers.reference(str(sample.answer(1)).encode()) as reference, _client(reference) as bare:
        for turn in range(_TURNS):
            progress.doing(f"one caller, turn {turn + 1} of {_TURNS}")
            for client_, medians in ((bare, constant), (client, ours)):
                asked = _Asked()
                for _ in range(_WARM):
                    asked.ask(client_, 1, sample.answer(1))
                medians.append(percentile(asked.times, 50) if not asked.failed else math.nan)
    return [
        Row(f"s3: model that is awake, one boto3 caller, p50 (best of {_TURNS})", min(ours), "ms", 3),
        Row("s3: the same, median of all turns", statistics.median(ours), "ms", 3),
        Row("s3: the same call of a bare server that answers a constant", statistics.median(constant), "ms"),
    ]


def _crowd(server: MmServe, models: Bucket, progress: Progress) -> list[Row]:
    """boto3 holds ten connections: a crowd is many clients, here of plain HTTP with the same headers."""
    progress.doing(f"{_CALLERS} first requests at once to one model")
    together = threading.Barrier(_CALLERS)

    def ask(_: int) -> bool:
        connection = HTTPConnection(server.inference.host, server.inference.port, timeout=_TIMEOUT)
        try:
            connection.connect()
            together.wait(_TIMEOUT)
            headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Target-Model": "sklearn-crowded.tar.gz"}
            connection.request("POST", "/endpoints/mmserve/invocations", sample.BODY, headers)
            response = connection.getresponse()
            return response.status == 200 and math.isclose(json.loads(response.read()), sample.answer(0))
        finally:
            connection.close()

    with ThreadPoolExecutor(_CALLERS) as threads:
        answers = sum(threads.map(ask, range(_CALLERS)))
    found = msgspec.json.decode(server.management.call("GET", "/events?model=sklearn-crowded&limit=1000"))
    loads = [event["kind"] for event in found["events"]].count("worker_started")
    return [
        Row(f"s3: {_CALLERS} first requests at once to one model: answers", answers, "", _CALLERS, more_is_better=True),
        Row("s3: the same: downloads", models.count("GET", _key("crowded")), "", 1),
        Row("s3: the same: loads (maxWorkers=1)", loads, "", 1),
    ]


def _replaced(client: Any, models: Bucket, progress: Progress) -> list[Row]:
    progress.doing("replacing an object under load")
    old, new = sample.answer(0), sample.answer(MODELS)
    enough = threading.Event()
    # When each answer came, and what it was; NaN for an error.
    came: list[tuple[float, float]] = []

    def ask() -> None:
        while not enough.is_set():
            try:
                answer = _ask(client, 0)
            except (BotoCoreError, ClientError) as error:
                progress.say(f"while an object was replaced: {error}")
                answer = math.nan
            came.append((time.perf_counter(), answer))

    with _threads(ask, _UNDER_LOAD, enough):
        time.sleep(_BEFORE)
        replaced = time.perf_counter()
        models.put(_key(0), sample.archive(MODELS))
        time.sleep(_INTERVAL + _AFTER)
    olds, news = ([at - replaced for at, answer in came if math.isclose(answer, each)] for each in (old, new))
    failed = len(came) - len(olds) - len(news)
    first, last = min(news, default=math.nan), max(olds, default=math.nan)
    # What follows asks for the answers that there were.
    models.put(_key(0), sample.archive(0))
    _wait_for(lambda: math.isclose(_ask(client, 0), old))
    return [
        Row(f"s3: object replaced under load: failed of {len(came):,} requests", failed, "", 0),
        Row(f"s3: the same: first new answer (a look every {_INTERVAL:.0f} s)", first, "s", _INTERVAL),
        Row("s3: the same: last old answer", last, "s"),
    ]


@contextmanager
def _threads(work: Callable[[], None], count: int, enough: threading.Event) -> Iterator[None]:
    with ThreadPoolExecutor(count) as threads:
        running = [threads.submit(work) for _ in range(count)]
        try:
            yield
        finally:
            enough.set()
        for each in running:
            each.result()


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise servers.ServerError("the object that was put back is not served")
        time.sleep(0.1)
