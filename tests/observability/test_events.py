"""The log of events: the newest are kept, and who waits for the next gets it, all of them, once."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from mmserve.observability.events import EventLog
from tests.servers import DEADLINE


def filled(*models: str, capacity: int = 10_000) -> EventLog:
    """A log with an event for each of these models, in this order."""
    log = EventLog(capacity)
    for model in models:
        log.add("worker_started", model, "queue", pid=1)
    return log


def ids(log: EventLog, event_id: int, model: str | None = None, limit: int = 1000) -> list[int]:
    return [event.id for event in log.after(event_id, model=model, limit=limit)]


def test_an_event_says_what_happened_when_to_which_model_and_why() -> None:
    log = EventLog()
    before = time.time()
    log.add("worker_ended", "churn-acme", "signal", pid=17, signal="SIGSEGV")
    log.add("draining")
    ended, draining = log.after(0)
    assert (ended.id, ended.kind, ended.model, ended.reason) == (1, "worker_ended", "churn-acme", "signal")
    assert dict(ended.details) == {"pid": 17, "signal": "SIGSEGV"}
    assert (draining.id, draining.model, draining.reason, dict(draining.details)) == (2, "", "", {})
    assert before <= ended.time <= draining.time <= time.time()


def test_events_come_oldest_first_from_where_the_reader_was() -> None:
    log = filled("a", "b", "a", "c", "a")
    assert ids(log, 0) == [1, 2, 3, 4, 5]
    assert ids(log, 3) == [4, 5]
    assert ids(log, 5) == []
    assert ids(log, 0, limit=2) == [1, 2]
    assert ids(log, 1, model="a") == [3, 5]
    assert ids(log, 0, model="a", limit=2) == [1, 3]
    assert [event.id for event in log.newest(limit=2)] == [4, 5]
    assert [event.id for event in log.newest(model="a", limit=2)] == [3, 5]


def test_only_the_newest_are_kept_and_a_reader_can_see_the_gap() -> None:
    log = filled(*"abcdefg", capacity=3)
    assert (log.first_id, log.last_id) == (5, 7)
    assert ids(log, 1) == [5, 6, 7]
    assert ids(log, 5) == [6, 7]


def test_the_first_event_to_come_is_the_first_of_an_empty_log() -> None:
    log = EventLog()
    assert (log.first_id, log.last_id) == (1, 0)


def test_who_followed_another_server_gets_all_of_this_one() -> None:
    assert ids(filled("a", "b"), 5_000) == [1, 2]


def test_the_log_has_a_line_for_each_event_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    with caplog.at_level(logging.INFO, "mmserve.events"):
        log.add("worker_started", "churn-acme", "queue", pid=17)
        log.add("worker_ended", "churn-acme", "signal", level=logging.WARNING, pid=17, signal="SIGSEGV")
        log.add("draining", level=logging.INFO)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "worker_ended churn-acme, signal, pid=17 signal=SIGSEGV"),
        ("INFO", "draining"),
    ]


def test_who_waits_gets_the_next_event_of_the_model_it_asked_for() -> None:
    async def follow() -> None:
        log = filled("a")
        waiting = asyncio.create_task(log.wait(1, model="b", limit=10, timeout=DEADLINE))
        anything = asyncio.create_task(log.wait(1, limit=10, timeout=DEADLINE))
        await asyncio.sleep(0)
        log.add("worker_started", "a")
        assert [event.id for event in await anything] == [2]
        assert not waiting.done()
        log.add("worker_started", "b")
        log.add("worker_stopped", "b")
        assert [event.id for event in await waiting] == [3, 4]
        assert [event.id for event in await log.wait(1, limit=10, timeout=DEADLINE)] == [2, 3, 4]

    asyncio.run(follow())


def test_nobody_misses_or_sees_twice_what_is_added_while_they_follow() -> None:
    async def follow(log: EventLog, count: int) -> list[int]:
        seen: list[int] = []
        while len(seen) < count:
            last = seen[-1] if seen else 0
            seen += [event.id for event in await log.wait(last, limit=7, timeout=DEADLINE)]
        return seen

    async def run() -> None:
        log = EventLog()
        followers = [asyncio.create_task(follow(log, 300)) for _ in range(3)]
        for number in range(300):
            log.add("tick")
            if number % 5 == 0:
                await asyncio.sleep(0)
        assert await asyncio.gather(*followers) == [list(range(1, 301))] * 3

    asyncio.run(run())


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_waiting_ends_with_its_time(timeout: float) -> None:
    log = filled("a")
    assert asyncio.run(log.wait(1, limit=10, timeout=timeout)) == []
    assert [event.id for event in asyncio.run(log.wait(0, limit=10, timeout=timeout))] == [1]


def test_an_event_that_comes_with_the_end_of_the_time_is_not_missed() -> None:
    async def follow() -> None:
        log = filled("a")
        waiting = asyncio.create_task(log.wait(1, limit=10, timeout=0.01))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.011, log.add, "worker_started")
        # Both are due at the next turn of the event loop.
        time.sleep(0.03)  # noqa: ASYNC251
        assert [event.id for event in await waiting] == [2]

    asyncio.run(follow())


def test_a_line_of_the_log_stays_one_whatever_a_model_says(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mmserve.events"):
        EventLog().add("load_failed", "a", "error", level=logging.WARNING, message="no\ndisk\x1b[2J")
    assert [record.getMessage().isprintable() for record in caplog.records] == [True]


def test_nobody_waits_once_the_log_is_closed() -> None:
    async def close() -> None:
        log = filled("a")
        waiting = [asyncio.create_task(log.wait(1, limit=10, timeout=DEADLINE)) for _ in range(3)]
        await asyncio.sleep(0)
        log.close()
        async with asyncio.timeout(1):
            assert await asyncio.gather(*waiting) == [[], [], []]
            assert await log.wait(1, limit=10, timeout=DEADLINE) == []
            log.add("worker_stopped")
            assert [event.id for event in await log.wait(1, limit=10, timeout=DEADLINE)] == [2]
            assert await log.wait(2, limit=10, timeout=DEADLINE) == []

    asyncio.run(close())
