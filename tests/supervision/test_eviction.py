"""Which idle worker goes when memory is short: the least recently used, but for those that only pass by."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.supervision.eviction import IdleWorkers, Victim


def anybody(worker: str) -> bool:
    return True


def idle(since: dict[str, float], intervals: dict[str, float] | None = None) -> IdleWorkers[str]:
    workers: IdleWorkers[str] = IdleWorkers()
    for worker, moment in since.items():
        workers.add(worker, moment, (intervals or {}).get(worker))
    return workers


def test_nobody_goes_where_nobody_is_idle() -> None:
    assert idle({}).victim(10.0, anybody) is None


def test_the_least_recently_used_goes_first() -> None:
    workers = idle({"a": 1.0, "b": 2.0, "c": 3.0})
    assert workers.victim(10.0, anybody) == Victim("a", 9.0, None)


def test_who_was_used_since_is_not_the_first_any_more() -> None:
    workers = idle({"a": 1.0, "b": 2.0})
    workers.discard("a")
    workers.add("a", 3.0)
    assert workers.victim(10.0, anybody) == Victim("b", 8.0, None)
    assert workers.since("a") == 3.0


def test_who_becomes_idle_again_goes_to_the_end() -> None:
    workers = idle({"a": 1.0, "b": 2.0}, {"a": 100.0})
    workers.add("a", 3.0)
    assert workers.victim(10.0, anybody) == Victim("b", 8.0, None)


def test_who_is_in_use_or_gone_is_nobodys_victim() -> None:
    workers = idle({"a": 1.0, "b": 2.0}, {"a": 100.0})
    workers.discard("a")
    workers.discard("a")
    assert len(workers) == 1
    assert workers.victim(10.0, anybody) == Victim("b", 8.0, None)
    workers.discard("b")
    assert workers.victim(10.0, anybody) is None


def test_who_may_not_go_stays() -> None:
    workers = idle({"pinned": 1.0, "b": 2.0, "returned": 3.0}, {"returned": 100.0})
    assert workers.victim(10.0, lambda worker: worker == "b") == Victim("b", 8.0, None)
    assert workers.victim(10.0, lambda worker: False) is None


def test_who_comes_back_more_rarely_than_any_other_was_idle_goes_first() -> None:
    workers = idle({"a": 1.0, "returned": 5.0}, {"returned": 9.5})
    assert workers.victim(10.0, anybody) == Victim("returned", 5.0, 9.5)
    # By now the other one has been idle for longer.
    assert workers.victim(11.0, anybody) == Victim("a", 10.0, None)


def test_of_those_that_came_back_the_one_that_comes_most_rarely_goes() -> None:
    workers = idle({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 20.0, "b": 40.0, "c": 30.0})
    order = []
    while (victim := workers.victim(10.0, anybody)) is not None:
        order.append(victim.worker)
        workers.discard(victim.worker)
    assert order == ["b", "c", "a"]


def test_who_is_asked_again_soon_after_an_eviction_is_not_evicted_again_for_that() -> None:
    workers = idle({"a": 1.0, "returned": 9.0}, {"returned": 2.0})
    assert workers.victim(10.0, anybody) == Victim("a", 9.0, None)


def test_an_interval_is_forgotten_with_its_worker() -> None:
    workers = idle({"a": 1.0, "b": 2.0}, {"b": 100.0})
    workers.discard("b")
    workers.add("b", 3.0)
    assert workers.victim(10.0, anybody) == Victim("a", 9.0, None)


def test_those_are_expired_that_were_idle_for_as_long_as_each_may_be() -> None:
    workers = idle({"a": 1.0, "b": 1.0, "c": 8.0})
    limits = {"a": 9.0, "b": 9.5, "c": 1.0}
    assert workers.expired(10.0, limits.__getitem__) == ["a", "c"]


events = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.none() | st.floats(0, 100)), max_size=40)


@given(events, st.sets(st.sampled_from("abcdef")))
def test_of_any_history_the_victim_is_the_one_that_the_rule_names(
    history: Sequence[tuple[str, bool, float | None]], may_go: set[str]
) -> None:
    workers: IdleWorkers[str] = IdleWorkers()
    known: dict[str, tuple[float, float | None]] = {}
    now = 0.0
    for worker, becomes_idle, interval in history:
        now += 1.0
        workers.discard(worker)
        known.pop(worker, None)
        if becomes_idle:
            workers.add(worker, now, interval)
            known[worker] = now, interval
    victim = workers.victim(now, may_go.__contains__)
    candidates = {worker: seen for worker, seen in known.items() if worker in may_go}
    if not candidates:
        assert victim is None
        return
    assert victim is not None
    since, interval = candidates[victim.worker]
    assert (victim.idle, victim.interval) == (now - since, interval)
    longest = max(now - since for since, _ in candidates.values())
    rarest = max((interval for _, interval in candidates.values() if interval is not None), default=-1.0)
    assert max(victim.idle, victim.interval or 0.0) == pytest.approx(max(longest, rarest))
