"""When a model that could not be started is tried again, and which deaths are a crash loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.errors import ModelFailed, NoMemory
from mmserve.supervision.failure import Failures

BROKEN = ModelFailed("ValueError", "ValueError: broken")
FULL = NoMemory("No memory.")


def waits(failures: Failures, error: ModelFailed | NoMemory, times: int) -> list[float]:
    """For how long nobody tries again, if each try comes as soon as it may and fails at once."""
    found, now = [], 100.0
    for _ in range(times):
        failure = failures.note(error, "", now)
        found.append(failure.retry_at - now)
        now = failure.retry_at
    return found


def test_the_wait_doubles_up_to_a_minute() -> None:
    assert waits(Failures(), BROKEN, 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_model_that_has_failed_for_days_is_tried_every_minute() -> None:
    assert set(waits(Failures(), BROKEN, 5000)[6:]) == {60}


def test_short_memory_is_not_the_models_fault_and_doubles_nothing() -> None:
    assert waits(Failures(), FULL, 5) == [1] * 5


def test_nobody_tries_until_then_and_anybody_from_then_on() -> None:
    failures = Failures()
    assert failures.none
    assert not failures.blocks(0.0)
    retry_at = failures.note(BROKEN, "", 5.0).retry_at
    assert not failures.none
    assert failures.blocks(5.0)
    assert failures.blocks(retry_at - 0.001)
    assert not failures.blocks(retry_at)


def test_workers_that_were_started_together_fail_once() -> None:
    failures = Failures()
    first = failures.note(BROKEN, "", 5.0)
    second = failures.note(BROKEN, "", 5.9)
    assert (second.attempts, second.retry_at) == (first.attempts, first.retry_at)
    assert failures.note(BROKEN, "", first.retry_at).attempts == 2


def test_the_reason_that_is_told_is_the_latest() -> None:
    failures = Failures()
    failures.note(BROKEN, "where", 5.0)
    failures.note(FULL, "", 5.1)
    assert failures.last is not None
    assert isinstance(failures.last.error(), NoMemory)


def test_callers_get_an_exception_of_their_own_with_what_it_was() -> None:
    failure = Failures().note(BROKEN, "where", 5.0)
    first, second = failure.error(), failure.error()
    assert first is not second
    assert (first.status, first.error_type, str(first)) == (BROKEN.status, "ValueError", "ValueError: broken")
    assert failure.traceback == "where"


def test_a_worker_that_loads_ends_the_back_off() -> None:
    failures = Failures()
    failures.note(BROKEN, "", 5.0)
    failures.loaded()
    assert failures.none
    assert failures.note(BROKEN, "", 6.0).attempts == 1


@pytest.mark.parametrize(("with_request", "deaths"), [(True, 6), (False, 3)])
def test_so_many_early_deaths_in_a_row_are_a_crash_loop(with_request: bool, deaths: int) -> None:
    failures = Failures()
    assert [failures.died_early(with_request=with_request) for _ in range(deaths)] == [False] * (deaths - 1) + [True]


def test_an_answer_in_between_means_that_the_model_serves() -> None:
    failures = Failures()
    for _ in range(10):
        assert not failures.died_early(with_request=False)
        assert not failures.died_early(with_request=False)
        failures.answered(0.0)


def test_of_a_model_in_a_crash_loop_only_an_answer_says_that_it_serves() -> None:
    failures = Failures()
    while not failures.died_early(with_request=False):
        pass
    failures.note(BROKEN, "", 5.0)
    failures.loaded()
    assert failures.last is not None
    assert failures.note(BROKEN, "", 6.0).attempts == 2
    failures.answered(6.5)
    assert failures.none
    failures.note(BROKEN, "", 7.0)
    failures.loaded()
    assert failures.none


def test_while_a_crash_loop_is_tried_again_one_death_decides_and_an_answer_forgives_it() -> None:
    failures = Failures()
    assert [failures.died_early(with_request=False) for _ in range(5)] == [False, False, True, True, True]
    failures.answered(0.0)
    assert [failures.died_early(with_request=False) for _ in range(3)] == [False, False, True]


def test_the_answers_of_a_worker_that_was_there_before_do_not_hide_that_others_fail_to_load() -> None:
    failures = Failures()
    failures.note(BROKEN, "", 5.0)
    failures.answered(4.0)
    assert failures.last is not None
    failures.answered(5.5)
    assert failures.last is None


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([BROKEN, FULL]), st.booleans()), max_size=50))
def test_the_wait_is_never_longer_than_a_minute_nor_shorter_than_a_second(
    history: list[tuple[float, ModelFailed | NoMemory, bool]],
) -> None:
    failures, now = Failures(), 0.0
    for pause, error, loads in history:
        now += pause
        blocked = failures.blocks(now)
        failure = failures.note(error, "", now)
        assert now < failure.retry_at <= now + 60
        assert blocked or failure.retry_at >= now + 1
        if loads:
            failures.loaded()
            assert not failures.blocks(now)
