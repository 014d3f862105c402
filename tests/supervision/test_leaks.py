"""Which workers are thought to leak, by what was seen of them in one round after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmserve.models.model import Model
from mmserve.models.source import LocalSource
from mmserve.observability.stats import ModelStats
from mmserve.supervision import processes
from mmserve.supervision.limits import Limits
from mmserve.supervision.memory import MIB, MemoryAccount
from mmserve.supervision.pool import Pool
from mmserve.supervision.worker import Worker, WorkerState
from mmserve_worker.channel import Channel
from tests.defaults import DEFAULTS

# What the template is resident with, and so a worker right after its fork.
_TEMPLATE = 60 * MIB

Seen = Callable[..., list[bool]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Lets a worker be looked at while it holds one number of MiB after the other. Says for each whether it leaks."""
    resident = _TEMPLATE
    monkeypatch.setattr(processes, "resident", lambda pid: resident)
    monkeypatch.setattr(processes, "private", lambda pid: None)
    account = MemoryAccount(Limits(), 1 << 40)
    worker = Worker(
        1, Pool(Model("model", LocalSource(Path("model"))), DEFAULTS, ModelStats()), Channel.create(4096), "queue", None
    )
    account.add(worker)
    worker.forked(1 << 30, -1)
    account.forked(worker)
    worker.state = WorkerState.IDLE

    def look(*held: float, answers: int = 1) -> list[bool]:
        nonlocal resident
        found = []
        for megabytes in held:
            resident = _TEMPLATE + int(megabytes * MIB)
            worker.answered += answers
            assert asyncio.run(account.look([0])) == [worker]
            found.append(worker.memory.growth.is_leak)
        return found

    yield look
    worker.never_started()


def test_one_that_grows_round_after_round_leaks(seen: Seen) -> None:
    assert not any(seen(10, 30, 50, 70))
    assert seen(90, 110)[-1]


def test_one_that_grows_by_little_leaks_when_that_has_become_much(seen: Seen) -> None:
    found = seen(*range(10, 110))
    assert found.index(True) > 64
    assert all(found[found.index(True) :])


def test_one_that_fills_a_cache_and_stays_as_it_is_does_not_leak(seen: Seen) -> None:
    assert not any(seen(10, 60, 110, 160, *[160] * 20))


def test_one_that_grows_and_shrinks_does_not_leak(seen: Seen) -> None:
    assert not any(seen(*[10, 60, 110, 160, 30] * 5))


def test_a_large_one_may_grow_by_as_much_as_it_held_at_first(seen: Seen) -> None:
    assert not any(seen(*range(400, 800, 50)))
    assert seen(850)[-1]


def test_one_that_has_answered_nothing_only_loads(seen: Seen) -> None:
    assert not any(seen(*range(0, 1000, 100), answers=0))


def test_one_that_grows_by_hardly_anything_leaks_in_the_end(seen: Seen) -> None:
    assert seen(*[10 + 0.2 * second for second in range(600)])[-1]


def test_one_that_is_asked_now_and_then_leaks_like_any_other(seen: Seen) -> None:
    found = False
    for held in range(10, 250, 20):
        found = seen(held, answers=1)[-1] or found
        found = seen(held, answers=0)[-1] or found
    assert found


def test_a_cache_that_was_filled_long_ago_may_grow_a_little(seen: Seen) -> None:
    assert not any(seen(*range(10, 70, 20), 100, *[100] * 100, *[100 + step for step in range(20)]))
