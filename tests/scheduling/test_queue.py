"""The queue of one model: first come first served, batches bounded in number and bytes, deadlines."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.errors import DeadlineExceeded
from mmserve.models.model import Model
from mmserve.models.settings import ModelSettings
from mmserve.models.source import LocalSource
from mmserve.observability.stats import ModelStats
from mmserve.scheduling.queue import ModelQueue
from mmserve.scheduling.request import Answer, Request
from mmserve.supervision.pool import Pool
from tests.defaults import DEFAULTS


def queue_of(batch_size: int) -> ModelQueue:
    model = Model("model", LocalSource(Path("model")), registered_with=ModelSettings(batch_size=batch_size))
    return ModelQueue(model, Pool(model, DEFAULTS, ModelStats()))


def request(loop: asyncio.AbstractEventLoop, body: bytes = b"", deadline: float = 1.0) -> Request:
    future: asyncio.Future[Answer] = loop.create_future()
    return Request(body, "", "", "", {}, deadline, future)


@pytest.fixture(scope="module")
def loop() -> asyncio.AbstractEventLoop:
    """Only to make futures; it never runs."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


@given(
    sizes=st.lists(st.integers(0, 5000), max_size=40),
    batch_size=st.integers(1, 10),
    capacity=st.integers(0, 20_000),
    dead=st.sets(st.integers(0, 39)),
)
def test_batches_come_in_order_and_within_their_bounds(
    loop: asyncio.AbstractEventLoop, sizes: list[int], batch_size: int, capacity: int, dead: set[int]
) -> None:
    queue = queue_of(batch_size)
    requests = [request(loop, bytes(size)) for size in sizes]
    for index, each in enumerate(requests):
        each.deaths = int(index in dead)
    queue.waiting.extend(requests)
    expected = deque(requests)
    while queue.waiting:
        taken = queue.take(capacity).requests
        assert taken
        assert taken == [expected.popleft() for _ in taken]
        assert len(taken) <= batch_size
        if len(taken) > 1:
            assert sum(len(each.body) for each in taken) <= capacity
            assert not any(each.deaths for each in taken)
    assert not expected


def test_what_a_worker_died_of_comes_before_what_came_later(loop: asyncio.AbstractEventLoop) -> None:
    queue = queue_of(2)
    requests = [request(loop) for _ in range(4)]
    queue.waiting.extend(requests)
    taken = queue.take(10_000).requests
    for each in taken:
        each.deaths = 1
    queue.give_back(taken)
    assert [queue.take(10_000).requests for _ in range(3)] == [[requests[0]], [requests[1]], requests[2:]]


def test_only_late_requests_expire(loop: asyncio.AbstractEventLoop) -> None:
    queue = queue_of(1)
    requests = [request(loop, deadline=deadline) for deadline in (1.0, 2.0, 3.0)]
    queue.waiting.extend(requests)
    queue.expire(2.0)
    assert list(queue.waiting) == requests[2:]
    for late in requests[:2]:
        assert isinstance(late.future, asyncio.Future)
        assert isinstance(late.future.exception(), DeadlineExceeded)


def test_the_usual_request_needs_no_meta(loop: asyncio.AbstractEventLoop) -> None:
    future: asyncio.Future[Answer] = loop.create_future()
    for content_type in ("", "application/json"):
        # One that says JSON is not the same: a model may have a default of its own for one that says nothing.
        for accept in ("", "*/*"):
            usual = Request(b"", content_type, accept, "", {"x": "y"}, 0.0, future)
            assert usual.meta(with_headers=False) == b""
    assert b"predict_proba" in Request(b"", "", "", "predict_proba", {}, 0.0, future).meta(with_headers=False)
    assert b'"x": "y"' in Request(b"", "", "", "", {"x": "y"}, 0.0, future).meta(with_headers=True)
