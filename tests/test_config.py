"""The settings: where a value comes from, and what is said of one that is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmserve.config import Settings, load, table
from mmserve.errors import StartError


def test_a_setting_is_said_by_flag_environment_file_or_default_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "mmserve.toml"
    file.write_text("batch_size = 1\njob_queue_size = 1\nmin_workers = 1\n")
    environment = {"MMSERVE_BATCH_SIZE": "2", "MMSERVE_JOB_QUEUE_SIZE": "2", "MMSERVE_OTHER": "2"}
    settings, sources, _ = load({"batch_size": "3"}, environment, str(file))
    assert (settings.batch_size, settings.job_queue_size, settings.min_workers) == (3, 2, 1)
    assert settings.request_timeout == Settings().request_timeout
    assert sources == {
        "batch_size": "--batch-size",
        "job_queue_size": "MMSERVE_JOB_QUEUE_SIZE",
        "min_workers": f"{file}: min_workers",
    }


def test_the_file_is_named_by_flag_or_environment(tmp_path: Path) -> None:
    for name, size in (("a.toml", 1), ("b.toml", 2)):
        (tmp_path / name).write_text(f"batch_size = {size}")
    environment = {"MMSERVE_CONFIG": str(tmp_path / "a.toml")}
    assert load({}, environment).settings.batch_size == 1
    assert load({}, environment, str(tmp_path / "b.toml")).settings.batch_size == 2
    assert load({}, {}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("preload", "numpy, joblib,", ("numpy", "joblib")),
        ("preload", "", ()),
        ("preload", ["numpy"], ("numpy",)),
        ("max_batch_delay", "0", 0.0),
        ("request_timeout", "0.5", 0.5),
        ("request_timeout", 2, 2.0),
        ("max_request_size", "1000", 1000),
        ("model_store", "models", "models"),
        ("max_workers", "3", 3),
        ("max_memory_mb", "100", 100.0),
        ("memory_budget", "1000000", 1_000_000),
        ("log_level", "DEBUG", "DEBUG"),
    ],
)
def test_a_value_is_read(name: str, value: object, expected: object) -> None:
    read = getattr(load({name: value}, {}).settings, name)
    assert (read, type(read)) == (expected, type(expected))


def test_bounds_that_contradict_each_other_are_named_with_where_they_come_from() -> None:
    with pytest.raises(StartError, match=r"^--min-workers is 3, more than MMSERVE_MAX_WORKERS of 2$"):
        load({"min_workers": "3"}, {"MMSERVE_MAX_WORKERS": "2"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("job_queue_size", "0", "a whole number of at least 1"),
        ("job_queue_size", "-1", "a whole number of at least 1"),
        ("job_queue_size", "1.5", "a whole number of at least 1"),
        ("job_queue_size", "", "a whole number of at least 1"),
        ("job_queue_size", "64MiB", "a whole number of at least 1"),
        ("job_queue_size", [1], "a whole number of at least 1"),
        ("min_workers", "-1", "a whole number of at least 0 and at most 1000"),
        ("worker_nice", "20", "a whole number of at least 0 and at most 19"),
        ("max_memory_mb", "much", "a number above 0 and at most 1073741824"),
        ("request_timeout", "0", "a number above 0 and at most 86400"),
        ("request_timeout", "-1", "a number above 0 and at most 86400"),
        ("request_timeout", "nan", "a number above 0 and at most 86400"),
        ("request_timeout", "inf", "a number above 0 and at most 86400"),
        ("read_timeout", "1e300", "a number above 0 and at most 86400"),
        ("max_batch_delay", "-0.1", "a number of at least 0 and at most 86400000"),
        ("max_batch_delay", "inf", "a number of at least 0 and at most 86400000"),
        ("s3_anonymous", "perhaps", "true or false"),
        ("http", "http", "one of lane, aiohttp"),
        ("log_level", "debug", "one of DEBUG, INFO, WARNING, ERROR"),
        ("model_store", "", "some text"),
        ("max_header_size", "10", "a whole number of at least 1024"),
        ("model_store", 5, "some text"),
        ("preload", [5], "a list, each entry some text"),
    ],
)
def test_a_value_that_is_none_is_named_with_what_would_be_one(name: str, value: object, said: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(StartError) as raised:
        load({name: value}, {})
    assert str(raised.value) == f"{flag} is {value!r}, expected {said}"
    assert "\n" not in str(raised.value)
    if isinstance(value, str):
        with pytest.raises(StartError, match=f"^MMSERVE_{name.upper()} is "):
            load({}, {f"MMSERVE_{name.upper()}": value})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"batch_size = 0", "batch_size is 0, expected a whole number of at least 1"),
        (b"batch_size = 'x'", "batch_size is 'x', expected a whole number of at least 1"),
        (b"batch_sise = 1", "unknown setting: batch_sise"),
        (b"[server]\nbatch_size = 1", "unknown setting: server"),
        (b"batch_size", "is not valid TOML"),
        (b"batch_size = 1\nbatch_size = 2", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
    ],
)
def test_a_file_that_is_none_is_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "mmserve.toml"
    file.write_bytes(content)
    with pytest.raises(StartError) as raised:
        load({}, {}, str(file))
    assert str(raised.value).startswith(f"{file}: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(StartError, match=f"^{path}: cannot be read: {reason}"):
            load({}, {"MMSERVE_CONFIG": str(path)})


def test_every_setting_has_a_flag_a_variable_and_a_sentence() -> None:
    rows = table()
    assert [row.name for row in rows] == list(Settings.__struct_fields__)
    for row in rows:
        assert row.flag.startswith("--")
        assert row.variable.startswith("MMSERVE_")
        assert row.description.endswith(".")
        assert "\n" not in row.description


def test_every_default_is_a_value_that_can_be_said() -> None:
    for row in table():
        if row.default is not None:
            said = ",".join(row.default) if isinstance(row.default, tuple) else str(row.default)
            assert getattr(load({row.name: said}, {}).settings, row.name) == row.default


def test_directories_are_systemds_then_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Settings().runtime_dir == f"/tmp/mmserve-{os.getuid()}"
    assert Settings().cache_dir == "/home/somebody/.cache/mmserve"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/somebody/cached")
    assert Settings().runtime_dir == "/run/user/1/mmserve"
    assert Settings().cache_dir == "/home/somebody/cached/mmserve"
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/mmserve:/run/other")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/mmserve")
    assert Settings().runtime_dir == "/run/mmserve"
    assert Settings().cache_dir == "/var/cache/mmserve"


def test_a_variable_that_looks_like_ours_and_is_none_is_remarked() -> None:
    environment = {"MMSERVE_JOB_QUEUE_SIZ": "3", "MMSERVE_CONFIG": "", "MMSERVE_BATCH_SIZE": "2", "MMSERVE_XYZ": "1"}
    assert load({}, environment).remarks == [
        "MMSERVE_JOB_QUEUE_SIZ has no effect: it is not known, is MMSERVE_JOB_QUEUE_SIZE meant?",
        "MMSERVE_XYZ has no effect: it is not known",
    ]


def test_what_kubernetes_says_of_a_service_of_our_name_is_not_remarked() -> None:
    names = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"]
    assert not load({}, {f"MMSERVE_{name}": "10.0.0.1" for name in names}).remarks
