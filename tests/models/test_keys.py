"""The keys of serving.properties: each honoured, without effect, or refused by its name."""

from __future__ import annotations

import re

import pytest

from mmserve.errors import StartError
from mmserve.models import keys
from mmserve.models.key_table import RefusedKey
from mmserve.models.settings import KEYS_OF_FILES, SettingError

# Of DJL Serving: what it reads of a model's file.
OF_DJL_SERVING = set(
    re.findall(
        r"\S+",
        """
    engine minWorkers cpu.minWorkers gpu.minWorkers maxWorkers cpu.maxWorkers gpu.maxWorkers batch_size
    max_dynamic_batch_size max_batch_delay max_idle_time job_queue_size load_on_devices required_memory_mb
    gpu.required_memory_mb reserved_memory_mb gpu.reserved_memory_mb retry_threshold log_request_metric
    metrics_aggregation translator translatorFactory batchifier application option.modelName option.entryPoint
    option.handler option.pythonExecutable option.predict_timeout option.model_loading_timeout option.env
    option.enable_venv option.async_mode option.parallel_loading option.mpi_mode option.tensor_parallel_degree
    option.pipeline_parallel_degree option.rolling_batch option.max_rolling_batch_size option.model_id
    option.enable_lora option.max_output_size option.model_format option.skops_trusted_types
    option.trust_insecure_model_files option.default_accept
    """,
    )
)


def test_every_key_is_in_the_table_once_and_says_why() -> None:
    assert len(keys.BY_NAME) == len(keys.TABLE)
    assert set(keys.BY_NAME) >= OF_DJL_SERVING
    assert {name for names in KEYS_OF_FILES.values() for name in names} <= set(keys.BY_NAME)
    assert all(key.meaning for key in keys.TABLE)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("engine", "PyTorch", "there is no such engine"),
        ("engine", "MPI", "there is no such engine"),
        ("load_on_devices", "0;gpu1", "a model runs on CPUs"),
        ("option.rolling_batch", "auto", "it is for language models"),
        ("option.tensor_parallel_degree", "2", "a model runs on CPUs"),
        ("option.mpi_mode", "true", "a model runs on CPUs"),
        ("option.async_mode", "TRUE", "more workers answer more"),
        ("option.pythonExecutable", "/opt/python", "workers run in the Python"),
        ("option.model_id", "some/model", "not on a hub"),
        ("translator", "com.example.T", "it is for Java"),
        ("option.entryPoint", "https://example.com/model.py", "not from a URL"),
    ],
)
def test_what_a_model_would_miss_is_refused_by_name(name: str, value: str, reason: str) -> None:
    with pytest.raises(RefusedKey, match=f"^{name}.* is refused: .*{reason}"):
        keys.check({"batch_size": "1", name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", "Python"),
        ("engine", " OnnxRuntime"),
        ("load_on_devices", "*"),
        ("load_on_devices", "0;-1"),
        ("option.tensor_parallel_degree", "1"),
        ("option.mpi_mode", "False"),
        ("option.rolling_batch", "disable"),
        ("option.entryPoint", "model.py"),
    ],
)
def test_what_holds_anyway_is_not_refused(name: str, value: str) -> None:
    keys.check({name: value})
    assert keys.remarks({name: value}) == []


def test_what_has_no_effect_is_remarked_with_its_reason() -> None:
    properties = {"batch_size": "1", "retry_threshold": "3", "option.anything": "x", "gpu.maxWorkers": "2"}
    assert keys.remarks(properties) == [
        "retry_threshold has no effect: a model that has failed is tried again after a while, for ever",
        "gpu.maxWorkers has no effect: a model runs on CPUs, each worker on its own",
    ]
    keys.check(properties)


def test_keys_that_nothing_reads_are_named() -> None:
    properties = {"engine": "Python", "cpu.minWorkers": "1", "option.anything": "x", "batchsize": "8"}
    properties |= {"log_model_metric": "true", "gpu.maxWorkers": "1", "load_on_devices": "*", "option": "x"}
    assert keys.unknown(properties) == ["batchsize", "log_model_metric", "option"]


def test_variables_are_read() -> None:
    assert keys.variables({}) == {}
    assert keys.variables({"option.env": " A=b, C = d=e ,"}) == {"A": "b", "C": "d=e"}


@pytest.mark.parametrize("said", ["A", "=b", "A=b,C", "A B=c", "1=2", "A=\0"])
def test_variables_that_are_none_are_refused(said: str) -> None:
    with pytest.raises(SettingError, match="expected NAME=VALUE"):
        keys.check({"option.env": said})


def test_no_default_takes_the_place_of_what_a_file_says_by_another_key() -> None:
    said = {"minWorkers": "1", "option.method": "predict"}
    defaults = {"cpu.minWorkers": "2", "maxWorkers": "3", "option.method": "apply"}
    assert keys.over(said, defaults) == {"minWorkers": "1", "maxWorkers": "3", "option.method": "predict"}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("option.entrypoint", "option.entryPoint"),
        ("option.modelname", "option.modelName"),
        ("min_workers", "minWorkers"),
        ("batch_size", "batch_size"),
        ("option.of_my_own", "option.of_my_own"),
    ],
)
def test_a_key_is_known_without_its_capitals(name: str, key: str) -> None:
    assert keys.spelled(name) == key


@pytest.mark.parametrize("said", ["batch_size", "=4", "batch_size=many", "engine=PyTorch"])
def test_what_cannot_be_said_for_all_models_stops_the_start(said: str) -> None:
    with pytest.raises(StartError, match=r"^model_properties: "):
        keys.for_all([said])
