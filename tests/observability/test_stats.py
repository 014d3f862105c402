"""Counting is exact, and costs a request next to nothing."""

from __future__ import annotations

import timeit
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.observability.stats import SECONDS, SIZES, ModelStats


@dataclass
class Waiting:
    queued_at: float


@given(st.lists(st.tuples(st.sampled_from([200, 424, 429]), st.floats(0, 100)), max_size=30))
def test_every_answer_is_counted_once_by_status_and_by_time(answers: list[tuple[int, float]]) -> None:
    stats = ModelStats()
    for status, seconds in answers:
        stats.answered(status, seconds)
    statuses = [status for status, _ in answers]
    assert stats.requests == {status: statuses.count(status) for status in statuses}
    assert stats.latency_seconds == pytest.approx(sum(seconds for _, seconds in answers))
    for index, bound in enumerate(SECONDS):
        assert sum(stats.latencies[: index + 1]) == sum(seconds <= bound for _, seconds in answers)
    assert sum(stats.latencies) == len(answers)


@given(st.lists(st.lists(st.floats(0, 100), min_size=1, max_size=200), max_size=5))
def test_every_batch_and_every_wait_is_counted_once(batches: list[list[float]]) -> None:
    stats = ModelStats()
    for waits in batches:
        stats.dispatched([Waiting(100.0 - wait) for wait in waits], 100.0)
    waited = [100.0 - (100.0 - wait) for waits in batches for wait in waits]
    assert stats.wait_seconds == pytest.approx(sum(waited))
    for index, bound in enumerate(SECONDS):
        assert sum(stats.waits[: index + 1]) == sum(wait <= bound for wait in waited)
    for index, size in enumerate(SIZES):
        assert sum(stats.sizes[: index + 1]) == sum(len(waits) <= size for waits in batches)
    assert (sum(stats.waits), sum(stats.sizes)) == (len(waited), len(batches))


def test_starts_and_stops_are_counted_by_reason() -> None:
    stats = ModelStats()
    for reason in ("queue", "minimum", "queue"):
        stats.worker_started(reason)
    stats.worker_stopped("idle")
    stats.evicted()
    stats.cold_start(0.25)
    stats.cold_start(0.5)
    assert (stats.starts, stats.stops, stats.evictions) == ({"queue": 2, "minimum": 1}, {"idle": 1}, 1)
    assert (stats.cold_starts, stats.cold_start_seconds) == (2, 0.75)


def test_counting_costs_a_request_microseconds_at_most() -> None:
    """A tenth of that was measured; what locks or formats anything costs more."""
    stats, batch, rounds = ModelStats(), [Waiting(1.0)], 10_000
    answering = min(timeit.repeat(lambda: stats.answered(200, 0.01), number=rounds, repeat=5)) / rounds
    dispatching = min(timeit.repeat(lambda: stats.dispatched(batch, 1.01), number=rounds, repeat=5)) / rounds
    assert max(answering, dispatching) < 3e-6
