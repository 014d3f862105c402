"""How many workers a model should have, one rule at a time: what was seen, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.supervision.policy import LONG_QUEUE, TARGET_WAIT, Scaling, Sight, scale, useful

CPUS = 4.0
NOTHING = Sight(
    min_workers=0,
    max_workers=16,
    batch_size=4,
    max_idle_time=60.0,
    waiting=0,
    busy=0,
    starting=0,
    idle=(),
    wanted=False,
    service_time=0.01,
    start_time=0.025,
    cpu_share=1.0,
)


def test_nobody_asks_and_nothing_runs() -> None:
    assert scale(NOTHING, CPUS) == Scaling(0, "enough")


def test_the_first_request_starts_one_worker_at_once() -> None:
    assert scale(replace(NOTHING, waiting=1), CPUS) == Scaling(1, "request")


def test_a_sleeping_model_is_woken_by_one_worker_however_many_wait() -> None:
    assert scale(replace(NOTHING, waiting=1000, service_time=None), CPUS) == Scaling(1, "request")


def test_a_model_that_somebody_wants_loaded_gets_a_worker_without_a_request() -> None:
    assert scale(replace(NOTHING, wanted=True), CPUS) == Scaling(1, "load")


def test_a_model_that_is_not_known_to_load_is_tried_by_one_worker() -> None:
    first = replace(NOTHING, waiting=1000, starting=1, proven=False)
    assert scale(first, CPUS) == Scaling(1, "enough")
    assert scale(replace(first, proven=True), CPUS).workers > 1


@pytest.mark.parametrize(
    "sight", [NOTHING, replace(NOTHING, busy=1), replace(NOTHING, idle=(0.0,)), replace(NOTHING, starting=1)]
)
def test_the_minimum_is_restored_at_once(sight: Sight) -> None:
    assert scale(replace(sight, min_workers=3), CPUS) == Scaling(3, "min_workers")


def test_all_the_workers_that_a_queue_justifies_start_at_once() -> None:
    # 40 requests are 10 batches of 0.1 s each: with 20 workers they would be gone in 0.05 s, but there are 10 of them.
    sight = replace(NOTHING, waiting=40, busy=1, service_time=0.1, cpu_share=0.01)
    assert scale(sight, CPUS) == Scaling(11, "queue")


def test_as_many_start_as_bring_the_wait_down_to_its_target() -> None:
    sight = replace(NOTHING, waiting=400, busy=1, service_time=0.004, cpu_share=0.01)
    # 100 batches are 0.4 s of work.
    assert scale(sight, CPUS) == Scaling(math.ceil(0.4 / TARGET_WAIT), "queue")


def test_workers_that_are_starting_count() -> None:
    sight = replace(NOTHING, waiting=400, busy=1, service_time=0.004, start_time=0.1, cpu_share=0.01)
    grown = scale(sight, CPUS).workers
    assert scale(replace(sight, starting=grown - 1), CPUS) == Scaling(grown, "enough")


def test_a_queue_that_is_gone_before_a_start_ends_starts_nothing() -> None:
    # 20 batches of 1 ms are done in 20 ms, and a start takes 25.
    sight = replace(NOTHING, waiting=80, busy=1, service_time=0.001)
    assert LONG_QUEUE * sight.batch_size < 80
    assert scale(sight, CPUS) == Scaling(1, "enough")
    assert scale(replace(sight, start_time=0.015), CPUS).workers > 1


def test_a_short_queue_that_has_to_wait_for_long_starts_workers() -> None:
    sight = replace(NOTHING, waiting=1, busy=1, service_time=2.0)
    assert scale(sight, CPUS) == Scaling(2, "queue")


def test_of_a_model_that_was_never_measured_only_a_long_queue_starts_more() -> None:
    sight = replace(NOTHING, waiting=LONG_QUEUE * 4, busy=1, service_time=None)
    assert scale(sight, CPUS) == Scaling(1, "enough")
    assert scale(replace(sight, waiting=LONG_QUEUE * 4 + 1), CPUS) == Scaling(4, "queue")


@pytest.mark.parametrize("share", [None, 1.0])
def test_a_model_that_computes_gets_no_more_workers_than_there_are_cpus(share: float | None) -> None:
    busy = replace(NOTHING, waiting=1000, busy=1, service_time=1.0, cpu_share=share)
    assert scale(busy, CPUS) == Scaling(4, "queue")
    assert scale(replace(busy, busy=4), CPUS) == Scaling(4, "enough")


def test_a_model_that_waits_for_something_else_gets_all_that_it_may_have() -> None:
    sight = replace(NOTHING, waiting=1000, busy=1, service_time=1.0, cpu_share=0.02)
    assert scale(sight, CPUS) == Scaling(16, "queue")


def test_a_quarter_of_a_cpu_for_each_means_four_times_the_cpus() -> None:
    sight = replace(NOTHING, waiting=1000, busy=1, service_time=1.0, cpu_share=0.25)
    assert scale(sight, CPUS) == Scaling(16, "queue")


def test_a_host_with_a_part_of_a_cpu_runs_one() -> None:
    assert useful(1.0, 0.25) == 1
    assert useful(None, 0.25) == 1
    assert useful(0.0, 0.25) == 250


def test_more_than_are_useful_are_not_ended_for_that() -> None:
    sight = replace(NOTHING, waiting=1000, busy=9, service_time=1.0)
    assert scale(sight, CPUS) == Scaling(9, "enough")


def test_while_a_worker_is_idle_none_is_started() -> None:
    sight = replace(NOTHING, waiting=1000, busy=1, idle=(0.0,), service_time=1.0)
    assert scale(sight, CPUS) == Scaling(2, "enough")


def test_a_lower_maximum_ends_what_is_above_it() -> None:
    assert scale(replace(NOTHING, max_workers=2, busy=5), CPUS) == Scaling(2, "max_workers")


def test_a_minimum_above_the_maximum_holds() -> None:
    assert scale(replace(NOTHING, min_workers=3, max_workers=2, busy=3), CPUS) == Scaling(3, "enough")


@pytest.mark.parametrize(
    ("idle", "left"), [((59.9,), 1), ((60.0,), 0), ((61.0, 60.0, 1.0), 1), ((61.0, 59.0, 1.0), 2), ((61.0, 61.0), 0)]
)
def test_those_that_have_been_idle_for_long_enough_go(idle: Sequence[float], left: int) -> None:
    assert scale(replace(NOTHING, idle=idle), CPUS).workers == left


def test_the_minimum_stays_however_long_it_is_idle() -> None:
    sight = replace(NOTHING, min_workers=2, idle=(1e6, 1e6, 1e6), busy=1)
    assert scale(sight, CPUS) == Scaling(2, "idle")
    assert scale(replace(sight, idle=(1e6, 1e6), busy=0), CPUS) == Scaling(2, "enough")


def test_one_that_is_needed_less_goes_while_others_are_busy() -> None:
    assert scale(replace(NOTHING, busy=3, idle=(60.0,)), CPUS) == Scaling(3, "idle")


ages = st.lists(st.floats(0, 1e4), max_size=8).map(lambda found: tuple(sorted(found, reverse=True)))
sights = st.builds(
    Sight,
    min_workers=st.integers(0, 8),
    max_workers=st.integers(1, 20),
    batch_size=st.integers(1, 64),
    max_idle_time=st.floats(0, 1e4),
    waiting=st.integers(0, 5000),
    busy=st.integers(0, 30),
    starting=st.integers(0, 30),
    idle=ages,
    wanted=st.booleans(),
    service_time=st.none() | st.floats(0, 100),
    start_time=st.floats(0, 10),
    cpu_share=st.none() | st.floats(0, 1),
    proven=st.booleans(),
)
cpus = st.floats(0.01, 256)


def serving(sight: Sight) -> int:
    return sight.busy + sight.starting + len(sight.idle)


@given(sights, cpus)
def test_what_should_run_is_between_the_minimum_and_the_maximum(sight: Sight, host: float) -> None:
    workers = scale(sight, host).workers
    assert sight.min_workers <= workers <= max(sight.max_workers, sight.min_workers)


@given(sights, cpus)
def test_the_reason_fits_what_is_done(sight: Sight, host: float) -> None:
    scaling = scale(sight, host)
    change = scaling.workers - serving(sight)
    assert (scaling.reason in ("min_workers", "request", "queue")) == (change > 0)
    assert (scaling.reason in ("idle", "max_workers")) == (change < 0)
    assert (scaling.reason == "enough") == (change == 0)


@given(sights, cpus, st.integers(1, 5000))
def test_a_longer_queue_never_means_fewer_workers(sight: Sight, host: float, more: int) -> None:
    assert scale(replace(sight, waiting=sight.waiting + more), host).workers >= scale(sight, host).workers


def test_while_something_waits_no_idle_worker_ends() -> None:
    """It waits for a CPU, or for a full batch, and the worker for the same."""
    assert scale(replace(NOTHING, waiting=1, idle=(60.0,)), CPUS) == Scaling(1, "enough")


def test_a_second_look_at_the_same_queue_starts_nothing_more() -> None:
    unmeasured = replace(NOTHING, waiting=9, busy=1, service_time=None)
    assert scale(unmeasured, 64.0) == Scaling(4, "queue")
    assert scale(replace(unmeasured, starting=3), 64.0) == Scaling(4, "enough")


@given(sights, cpus)
def test_what_was_just_started_is_enough(sight: Sight, host: float) -> None:
    workers = scale(sight, host).workers
    missing = workers - serving(sight)
    if missing > 0:
        done = replace(sight, starting=sight.starting + missing)
        assert scale(done, host) == Scaling(workers, "enough")


@given(sights, cpus)
def test_nothing_grows_without_a_request_beyond_what_was_asked_for(sight: Sight, host: float) -> None:
    assert scale(replace(sight, waiting=0), host).workers <= max(
        serving(sight), sight.min_workers, 1 if sight.wanted else 0
    )


@given(sights, cpus)
def test_whoever_waits_has_a_worker(sight: Sight, host: float) -> None:
    assert scale(replace(sight, waiting=sight.waiting + 1, idle=()), host).workers >= 1


@given(sights, cpus)
def test_only_those_that_have_been_idle_for_long_enough_end(sight: Sight, host: float) -> None:
    quiet = replace(sight, max_workers=100)
    surplus = serving(quiet) - scale(quiet, host).workers
    assert surplus <= sum(age >= quiet.max_idle_time for age in quiet.idle)
