"""What a model's settings are read from, which values are refused, and who goes before whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.models.settings import ModelSettings, SettingError, model_settings

counts = st.none() | st.integers(0, 20)


@st.composite
def consistent_settings(draw: st.DrawFn) -> ModelSettings:
    least, most = draw(counts), draw(st.none() | st.integers(1, 20))
    if least is not None and most is not None and least > most:
        least, most = most, least
    return ModelSettings(
        least,
        most,
        draw(counts),
        draw(st.none() | st.floats(0, 9)),
        draw(counts),
        draw(st.none() | st.just(7)),
    )


def test_nothing_said_is_nothing_set() -> None:
    assert model_settings({}) == ModelSettings() == ModelSettings.from_strings({})


def test_every_setting_is_read_from_serving_properties() -> None:
    properties = {
        "engine": "Python",
        "minWorkers": "1",
        "maxWorkers": "4",
        "batch_size": " 8 ",
        "max_batch_delay": "2.5",
        "max_idle_time": "600",
        "job_queue_size": "100",
        "option.batch_size": "not a setting",
    }
    assert model_settings(properties) == ModelSettings(1, 4, 8, 2.5, 600.0, 100)


def test_the_key_of_the_device_goes_before_the_general_one() -> None:
    said = model_settings({"minWorkers": "1", "cpu.minWorkers": "2", "maxWorkers": "3", "cpu.maxWorkers": "4"})
    assert (said.min_workers, said.max_workers) == (2, 4)


def test_the_batch_size_has_a_second_name() -> None:
    assert model_settings({"max_dynamic_batch_size": "16"}).batch_size == 16


@pytest.mark.parametrize("value", ["0", "-1", "-7"])
def test_a_maximum_of_no_workers_in_a_file_means_the_default(value: str) -> None:
    assert model_settings({"minWorkers": "2", "maxWorkers": value}) == ModelSettings(min_workers=2)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("batch_size", "many", "a whole number from 1 to 10000"),
        ("batch_size", "0", "a whole number from 1 to 10000"),
        ("batch_size", "10001", "a whole number from 1 to 10000"),
        ("batch_size", "8.0", "a whole number from 1 to 10000"),
        ("batch_size", "", "a whole number from 1 to 10000"),
        ("max_dynamic_batch_size", "-1", "a whole number from 1 to 10000"),
        ("minWorkers", "-1", "a whole number from 0 to 1000"),
        ("cpu.minWorkers", "1_0", "a whole number from 0 to 1000"),
        ("maxWorkers", "all", "a whole number"),
        ("job_queue_size", "0", "a whole number of 1 or more"),
        ("job_queue_size", "٣", "a whole number of 1 or more"),
        ("max_batch_delay", "-0.1", "a number of milliseconds, 0 or more"),
        ("max_batch_delay", "nan", "a number of milliseconds, 0 or more"),
        ("max_idle_time", "inf", "a number of seconds, 0 or more"),
        ("max_idle_time", "1 h", "a number of seconds, 0 or more"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(key: str, value: str, expected: str) -> None:
    with pytest.raises(SettingError) as raised:
        model_settings({key: value})
    assert str(raised.value) == f"{key} is {value!r}, expected {expected}"
    assert (raised.value.key, raised.value.value, raised.value.expected) == (key, value, expected)


def test_a_long_value_does_not_fill_the_message() -> None:
    with pytest.raises(SettingError) as raised:
        model_settings({"batch_size": "9" * 100_000})
    assert len(str(raised.value)) < 120


def test_more_workers_at_least_than_at_most_is_refused() -> None:
    with pytest.raises(SettingError, match="minWorkers is '5', expected a whole number from 0 to 4"):
        model_settings({"minWorkers": "5", "maxWorkers": "4"})


@pytest.mark.parametrize(
    "parameters",
    [
        {
            "min_worker": "1",
            "max_worker": "2",
            "batch_size": "3",
            "max_batch_delay": "4",
            "max_idle_time": "5",
        },
        {"minWorker": "1", "maxWorker": "2", "batchSize": "3", "maxBatchDelay": "4", "maxIdleTime": "5"},
        {
            "min_workers": "1",
            "max_workers": "2",
            "batchSize": "3",
            "maxBatchDelay": "4",
            "max_idle_time": "5",
        },
        {"minWorkers": "1", "maxWorkers": "2", "batch_size": "3", "maxBatchDelay": "4", "maxIdleTime": "5"},
    ],
)
def test_management_parameters_are_read_in_both_spellings(parameters: dict[str, str]) -> None:
    for queue in ("job_queue_size", "jobQueueSize"):
        assert ModelSettings.from_strings(parameters | {queue: "6", "url": "a.tar.gz"}) == ModelSettings(
            1, 2, 3, 4.0, 5.0, 6
        )


@pytest.mark.parametrize("key", ["initial_workers", "initialWorkers"])
def test_initial_workers_is_the_minimum_where_no_minimum_is_said(key: str) -> None:
    assert ModelSettings.from_strings({key: "3"}).min_workers == 3
    assert ModelSettings.from_strings({key: "3", "min_worker": "1"}).min_workers == 1


def test_minus_one_in_a_management_call_is_not_said() -> None:
    names = ("min_worker", "maxWorker", "batch_size", "max_batch_delay", "max_idle_time", "job_queue_size")
    assert ModelSettings.from_strings(dict.fromkeys(names, "-1")) == ModelSettings()


def test_a_management_call_for_no_workers_at_most_is_refused() -> None:
    with pytest.raises(SettingError, match="max_worker is '0', expected a whole number of 1 or more"):
        ModelSettings.from_strings({"max_worker": "0"})


def test_what_is_said_nearer_wins_and_the_rest_is_filled_in() -> None:
    nearer = ModelSettings(batch_size=8, max_idle_time=0.0)
    farther = ModelSettings(min_workers=1, batch_size=2, max_idle_time=60.0, job_queue_size=5)
    assert nearer.over(farther) == ModelSettings(min_workers=1, batch_size=8, max_idle_time=0.0, job_queue_size=5)


def test_a_bound_that_was_filled_in_gives_way_to_one_that_was_said() -> None:
    assert ModelSettings(min_workers=4).over(ModelSettings(max_workers=2)) == ModelSettings(4, 4)
    assert ModelSettings(max_workers=2).over(ModelSettings(min_workers=4)) == ModelSettings(2, 2)


@given(consistent_settings(), consistent_settings())
def test_settings_put_over_others_never_contradict_themselves(a: ModelSettings, b: ModelSettings) -> None:
    both = a.over(b)
    assert both.min_workers is None or both.max_workers is None or both.min_workers <= both.max_workers
    assert a.over(ModelSettings()) == ModelSettings().over(a) == a.over(a) == a
    assert both.over(b) == both
