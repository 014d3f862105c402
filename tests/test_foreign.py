"""What the environment variables of other servers do: they say a setting, have no effect, or are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmserve import config, foreign
from mmserve.config import load
from mmserve.errors import StartError


def test_every_row_says_a_setting_that_exists_or_a_reason() -> None:
    settings = {row.name for row in config.table()}
    for row in foreign.TABLE:
        assert [row.setting in settings, bool(row.reason), bool(row.serve)].count(True) == 1, row
    assert len({row.variable for row in foreign.TABLE}) == len(foreign.TABLE)


@pytest.mark.parametrize(
    ("variable", "text", "setting", "value"),
    [
        ("SERVING_MODEL_STORE", "/models", "model_store", "/models"),
        ("SERVING_BATCH_SIZE", "8", "batch_size", 8),
        ("SERVING_MIN_WORKERS", "2", "min_workers", 2),
        ("SERVING_MAX_WORKERS", "3", "max_workers", 3),
        ("SERVING_MAX_WORKERS", "-1", "max_workers", None),
        ("SERVING_MAX_REQUEST_SIZE", " 1000 ", "max_request_size", 1000),
        ("PREDICT_TIMEOUT", "30", "predict_timeout", 30.0),
        ("MODEL_LOADING_TIMEOUT", "300", "model_loading_timeout", 300.0),
        ("DJL_OFFLINE", "true", "environments_offline", True),
        ("SERVING_DOWNLOAD_DIR", "/cache", "cache_dir", "/cache"),
        ("SAGEMAKER_BIND_TO_PORT", "9000", "inference_address", "http://0.0.0.0:9000"),
        ("SAGEMAKER_NUM_MODEL_WORKERS", "2", "max_workers", 2),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "4", "max_workers", 4),
        ("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", "100", "job_queue_size", 100),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "60", "predict_timeout", 60.0),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "-1", "predict_timeout", None),
        ("SAGEMAKER_STARTUP_TIMEOUT", "600", "model_loading_timeout", 600.0),
        ("SAGEMAKER_MAX_REQUEST_SIZE", "1000", "max_request_size", 1000),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "6", "max_request_size", 6 * 1024 * 1024),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "20", "log_level", "INFO"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "35", "log_level", "WARNING"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "5", "log_level", "DEBUG"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "error", "log_level", "ERROR"),
    ],
)
def test_a_variable_of_another_server_says_a_setting(variable: str, text: str, setting: str, value: object) -> None:
    loaded = load({}, {variable: text})
    expected = getattr(config.Settings(), setting) if value is None else value
    assert getattr(loaded.settings, setting) == expected
    assert loaded.sources == ({setting: variable} if value is not None else {})


def test_seconds_that_are_said_to_be_such_go_before_those_that_may_be_minutes() -> None:
    environment = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "60", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "30"}
    assert load({}, environment).settings.predict_timeout == 30.0


@pytest.mark.parametrize(
    ("variable", "text", "properties"),
    [
        ("SAGEMAKER_PROGRAM", "score.py", ("option.entryPoint=code/score.py",)),
        ("SAGEMAKER_PROGRAM", "inference.py", ()),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv", ("option.default_accept=text/csv",)),
    ],
)
def test_a_variable_of_sagemaker_says_a_property_of_all_models(
    variable: str, text: str, properties: tuple[str, ...]
) -> None:
    assert load({}, {variable: text}).settings.model_properties == properties


def test_what_only_java_has_is_remarked() -> None:
    for variable in ("SAGEMAKER_MODEL_SERVER_VMARGS", "SAGEMAKER_MAX_HEAP_SIZE", "SAGEMAKER_MAX_DIRECT_MEMORY_SIZE"):
        (remark,) = load({}, {variable: "1g"}).remarks
        assert remark.startswith(f"{variable} has no effect: there is no Java")


def test_it_goes_before_the_file_and_after_our_own_variable(tmp_path: Path) -> None:
    file = tmp_path / "mmserve.toml"
    file.write_text("batch_size = 1\njob_queue_size = 1\n")
    environment = {"SERVING_BATCH_SIZE": "2", "SERVING_JOB_QUEUE_SIZE": "2", "MMSERVE_JOB_QUEUE_SIZE": "3"}
    settings = load({}, environment, str(file)).settings
    assert (settings.batch_size, settings.job_queue_size) == (2, 3)


def test_what_has_no_effect_is_remarked_with_its_reason() -> None:
    environment = {"SERVING_USE_NATIVE_IO": "true", "SERVING_NO_SUCH": "1", "SERVING_IO_RATIO": "", "PATH": "/bin"}
    assert load({}, environment).remarks == [
        "SERVING_USE_NATIVE_IO has no effect: it concerns Java",
        "SERVING_NO_SUCH has no effect: it is not known",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("SERVING_KEYSTORE", "keys.p12", "TLS"),
        ("SERVING_CORS_ALLOWED_ORIGIN", "*", "CORS"),
        ("SERVING_LOAD_ON_DEVICES", "gpu0", "CPUs"),
        ("SERVING_THROTTLE_ERROR_HTTP_CODE", "503", "always 429"),
    ],
)
def test_what_would_be_missed_is_refused_by_name(variable: str, text: str, reason: str) -> None:
    with pytest.raises(StartError, match=f"^{variable}={re.escape(text)} cannot be had: .*{reason}"):
        load({}, {variable: text})


def test_what_holds_anyway_is_not_refused() -> None:
    assert load({}, {"SERVING_THROTTLE_ERROR_HTTP_CODE": "429", "SERVING_LOAD_ON_DEVICES": "-1"}).remarks


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SERVING_MAX_WORKERS", "many"),
        ("SERVING_BATCH_SIZE", "0"),
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_BIND_TO_PORT", "70000"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_value_that_is_none_is_refused_by_the_variables_name(variable: str, text: str) -> None:
    with pytest.raises(StartError, match=f"^{variable} is '{text}', expected "):
        load({}, {variable: text})


def test_options_and_arguments_are_properties_of_all_models() -> None:
    environment = {
        "ARGS_BATCH_SIZE": "4",
        "ARGS_MIN_WORKERS": "1",
        "DJL_ENTRY_POINT": "old.py",
        "OPTION_ENGINE": "Python",
        "OPTION_ENTRYPOINT": "serve.py",
        "OPTION_ENV": "A=b,C=d",
        "OPTION_OF_MY_OWN": "x",
    }
    loaded = load({}, environment)
    assert set(loaded.settings.model_properties) == {
        "batch_size=4",
        "minWorkers=1",
        "option.entryPoint=old.py",
        "engine=Python",
        "option.entryPoint=serve.py",
        "option.env=A=b,C=d",
        "option.of_my_own=x",
    }
    assert loaded.settings.model_properties.index("option.entryPoint=old.py") == 0
    assert "OPTION_ENV" in loaded.sources["model_properties"]


@pytest.mark.parametrize(("text", "names"), [("ALL", ("ALL",)), ("NONE", ()), ("a, b c", ("a", "b", "c"))])
def test_the_models_that_are_loaded_at_the_start_are_a_list(text: str, names: tuple[str, ...]) -> None:
    assert load({}, {"SERVING_LOAD_MODELS": text}).settings.load_models == names


def test_a_model_from_elsewhere_cannot_be_loaded_at_the_start() -> None:
    with pytest.raises(StartError, match=r"SERVING_LOAD_MODELS is .*register what is elsewhere by POST /models"):
        load({}, {"SERVING_LOAD_MODELS": "m::Python=s3://bucket/m.tar.gz"})
