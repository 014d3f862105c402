"""What a model's settings are read from, which values are refused, and who goes before whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.models.settings import (
    MAX_MEMORY_MB,
    MAX_TIMEOUT,
    MAX_WEIGHT,
    ModelSettings,
    SettingError,
    Value,
    model_settings,
)


def above_zero(most: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(0, most, exclude_min=True)


@st.composite
def consistent_settings(draw: st.DrawFn) -> ModelSettings:
    """Settings as somebody may have said them."""
    least, most = draw(st.none() | st.integers(0, 20)), draw(st.none() | st.integers(1, 20))
    if least is not None and most is not None and least > most:
        least, most = most, least
    return ModelSettings(
        min_workers=least,
        max_workers=most,
        batch_size=draw(st.none() | st.integers(1, 10_000)),
        max_batch_delay_ms=draw(st.none() | st.floats(0, 1e9)),
        max_idle_time=draw(st.none() | st.floats(0, 1e9)),
        job_queue_size=draw(st.none() | st.integers(1, 10**18 - 1)),
        weight=draw(above_zero(MAX_WEIGHT)),
        pinned=draw(st.none() | st.booleans()),
        max_memory_mb=draw(above_zero(MAX_MEMORY_MB)),
        required_memory_mb=draw(st.none() | st.floats(0, MAX_MEMORY_MB)),
        predict_timeout=draw(above_zero(MAX_TIMEOUT)),
        model_loading_timeout=draw(above_zero(MAX_TIMEOUT)),
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
        "weight": "2.5",
        "pinned": "true",
        "max_memory_mb": "512",
        "required_memory_mb": "256",
        "option.predict_timeout": "30",
        "option.model_loading_timeout": "90",
        "option.batch_size": "not a setting",
    }
    assert model_settings(properties) == ModelSettings(1, 4, 8, 2.5, 600.0, 100, 2.5, True, 512.0, 256.0, 30.0, 90.0)


def test_the_timeouts_are_options_and_read_without_that_word_too() -> None:
    bare = {"predict_timeout": "1", "model_loading_timeout": "2"}
    assert model_settings(bare) == ModelSettings(predict_timeout=1.0, model_loading_timeout=2.0)
    options = {"option.predict_timeout": "3", "option.model_loading_timeout": "4"}
    assert model_settings(bare | options) == ModelSettings(predict_timeout=3.0, model_loading_timeout=4.0)


def test_the_key_of_the_device_goes_before_the_general_one() -> None:
    said = model_settings({"minWorkers": "1", "cpu.minWorkers": "2", "maxWorkers": "3", "cpu.maxWorkers": "4"})
    assert (said.min_workers, said.max_workers) == (2, 4)


def test_the_batch_size_has_a_second_name() -> None:
    assert model_settings({"max_dynamic_batch_size": "16"}).batch_size == 16


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("True", True), (" FALSE ", False), ("false", False)])
def test_whether_a_model_is_pinned_is_read_in_any_case(said: str, meant: bool) -> None:
    assert model_settings({"pinned": said}).pinned is meant
    assert ModelSettings.from_strings({"pinned": said}).pinned is meant


@pytest.mark.parametrize("value", ["0", "-1", "-7"])
def test_a_maximum_of_no_workers_in_a_file_means_the_default(value: str) -> None:
    assert model_settings({"minWorkers": "2", "maxWorkers": value}) == ModelSettings(min_workers=2)


def test_a_maximum_of_none_for_the_device_hides_the_general_one() -> None:
    assert model_settings({"cpu.maxWorkers": "-1", "maxWorkers": "4"}) == ModelSettings()


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
        ("weight", "0", "a number above 0, at most 1000"),
        ("weight", "1000.1", "a number above 0, at most 1000"),
        ("weight", "nan", "a number above 0, at most 1000"),
        ("weight", "heavy", "a number above 0, at most 1000"),
        ("pinned", "1", "true or false"),
        ("pinned", "yes", "true or false"),
        ("pinned", "", "true or false"),
        ("max_memory_mb", "0", "a number of megabytes above 0, at most 1073741824"),
        ("max_memory_mb", "1e300", "a number of megabytes above 0, at most 1073741824"),
        ("max_memory_mb", "512M", "a number of megabytes above 0, at most 1073741824"),
        ("predict_timeout", "0", "a number of seconds above 0, at most 86400"),
        ("option.predict_timeout", "-1", "a number of seconds above 0, at most 86400"),
        ("option.predict_timeout", "inf", "a number of seconds above 0, at most 86400"),
        ("model_loading_timeout", "86401", "a number of seconds above 0, at most 86400"),
        ("option.model_loading_timeout", "4m", "a number of seconds above 0, at most 86400"),
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


@pytest.mark.parametrize(
    "keys",
    [
        ("weight", "pinned", "max_memory_mb", "predict_timeout", "model_loading_timeout"),
        ("weight", "pinned", "maxMemoryMb", "predictTimeout", "modelLoadingTimeout"),
        ("Weight", "Pinned", "maxMemoryMB", "predictTimeout", "modelLoadingTimeout"),
    ],
)
def test_management_parameters_of_the_supervisor_are_read_in_both_spellings(keys: tuple[str, ...]) -> None:
    parameters = dict(zip(keys, ("2", "True", "64.5", "1.5", "10"), strict=True))
    assert ModelSettings.from_strings(parameters) == ModelSettings(
        weight=2.0, pinned=True, max_memory_mb=64.5, predict_timeout=1.5, model_loading_timeout=10.0
    )


@pytest.mark.parametrize("key", ["initial_workers", "initialWorkers"])
def test_initial_workers_is_the_minimum_where_no_minimum_is_said(key: str) -> None:
    assert ModelSettings.from_strings({key: "3"}).min_workers == 3
    assert ModelSettings.from_strings({key: "3", "min_worker": "1"}).min_workers == 1


def test_minus_one_in_a_management_call_is_not_said() -> None:
    names = ["min_worker", "maxWorker", "batch_size", "max_batch_delay", "max_idle_time", "job_queue_size", "weight"]
    names += ["pinned", "maxMemoryMb", "predict_timeout", "modelLoadingTimeout"]
    assert ModelSettings.from_strings(dict.fromkeys(names, "-1")) == ModelSettings()


def test_a_management_call_for_no_workers_at_most_is_refused() -> None:
    with pytest.raises(SettingError, match="max_worker is '0', expected a whole number of 1 or more"):
        ModelSettings.from_strings({"max_worker": "0"})


def test_what_is_said_nearer_wins_and_the_rest_is_filled_in() -> None:
    nearer = ModelSettings(batch_size=8, max_idle_time=0.0, pinned=False)
    farther = ModelSettings(min_workers=1, batch_size=2, max_idle_time=60.0, job_queue_size=5, pinned=True, weight=2.0)
    assert nearer.over(farther) == ModelSettings(
        min_workers=1, batch_size=8, max_idle_time=0.0, job_queue_size=5, pinned=False, weight=2.0
    )


def test_a_bound_that_was_filled_in_gives_way_to_one_that_was_said() -> None:
    assert ModelSettings(min_workers=4).over(ModelSettings(max_workers=2)) == ModelSettings(4, 4)
    assert ModelSettings(max_workers=2).over(ModelSettings(min_workers=4)) == ModelSettings(2, 2)


@given(consistent_settings(), consistent_settings())
def test_settings_put_over_others_never_contradict_themselves(a: ModelSettings, b: ModelSettings) -> None:
    both = a.over(b)
    assert both.min_workers is None or both.max_workers is None or both.min_workers <= both.max_workers
    assert a.over(ModelSettings()) == ModelSettings().over(a) == a.over(a) == a
    assert both.over(b) == both


@given(consistent_settings(), consistent_settings())
def test_what_was_said_is_told_as_values_and_read_again(a: ModelSettings, b: ModelSettings) -> None:
    assert ModelSettings.from_values(a.values()) == a
    assert ModelSettings.from_values(a.over(b).values()) == a.over(b)


def test_values_are_only_what_was_said() -> None:
    assert ModelSettings(min_workers=0, pinned=False).values() == {"min_workers": 0, "pinned": False}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_worker": 1}, "min_worker is '1', expected nothing, since there is no such setting"),
        ({"min_workers": -1}, "min_workers is '-1', expected a whole number from 0 to 1000"),
        ({"min_workers": 1.0}, "min_workers is '1.0', expected a whole number from 0 to 1000"),
        ({"min_workers": True}, "min_workers is 'True', expected a whole number from 0 to 1000"),
        ({"max_workers": 0}, "max_workers is '0', expected a whole number of 1 or more"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers is '3', expected a whole number from 0 to 2"),
        ({"weight": float("nan")}, "weight is 'nan', expected a number above 0, at most 1000"),
        ({"weight": True}, "weight is 'True', expected a number above 0, at most 1000"),
        ({"pinned": 1}, "pinned is '1', expected true or false"),
    ],
)
def test_values_are_read_as_strictly_as_what_is_typed(values: dict[str, Value], message: str) -> None:
    with pytest.raises(SettingError) as raised:
        ModelSettings.from_values(values)
    assert str(raised.value) == message
