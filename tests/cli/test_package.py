"""`mmserve package`: what it makes, what it refuses, and what it says to whom."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmserve.cli.package import package
from mmserve.models.archive import NAME_RULE
from mmserve.models.properties import parse
from mmserve_worker.handlers.files import MODEL_SUFFIXES


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.joblib").write_bytes(b"a model")
    return tmp_path


def run(*args: str) -> Result:
    result = CliRunner().invoke(package, args)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_files_are_packed_into_an_archive_that_can_be_served(place: Path) -> None:
    (place / "code").mkdir()
    (place / "code" / "model.py").write_text("x = 1")
    result = run("model.joblib", "code", "-o", "churn-acme.tar.gz")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "the model is model.joblib",
        "2 files, 12 bytes unpacked",
        "churn-acme.tar.gz is ready to be served as churn-acme",
    ]
    assert names(place / "churn-acme.tar.gz") == ["model.joblib", "model.py"]


def test_settings_go_into_serving_properties(place: Path) -> None:
    assert run("model.joblib", "-o", "a.tgz", "--set", "batch_size=8", "--set", "option.env=A=b,C=d").exit_code == 0
    with tarfile.open(place / "a.tgz") as tar:
        file = tar.extractfile("serving.properties")
        assert file is not None
        assert parse(file.read()) == {"batch_size": "8", "option.env": "A=b,C=d"}


def test_an_output_that_exists_is_replaced_with_force_only(place: Path) -> None:
    (place / "a.tgz").write_bytes(b"old")
    result = run("model.joblib", "-o", "a.tgz")
    assert (result.exit_code, result.stderr) == (1, "Error: a.tgz exists (--force replaces it)\n")
    assert (place / "a.tgz").read_bytes() == b"old"
    assert run("model.joblib", "-o", "a.tgz", "--force").exit_code == 0
    assert names(place / "a.tgz") == ["model.joblib"]


def test_an_output_that_is_replaced_is_not_packed(place: Path) -> None:
    for _ in range(2):
        assert run(".", "-o", "a.tar", "--force").exit_code == 0
    assert names(place / "a.tar") == ["model.joblib"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing.joblib", "-o", "a.tgz"], "missing.joblib does not exist"),
        (["model.joblib", "-o", "model.joblib/a.tgz"], "[Errno 17] File exists: 'model.joblib'"),
        (["model.joblib", "-o", "a.7z"], "a.7z must end in .tar.gz, .tgz, .tar, .zip or .mar"),
        (
            ["model.joblib", "-o", "a%b.tgz"],
            f"'a%b' is no name for a model: {NAME_RULE}",
        ),
        (["model.joblib", "model.joblib", "-o", "a.tgz"], "model.joblib and model.joblib would both be 'model.joblib'"),
        (["model.joblib", "-o", "a.tgz", "--set", "batch_size"], "--set batch_size: expected KEY=VALUE"),
        (
            ["model.joblib", "-o", "a.tgz", "--set", "batch_size=many"],
            "serving.properties: batch_size is 'many', expected a whole number from 1 to 10000",
        ),
        (["--check", "missing.tgz"], "missing.tgz does not exist"),
        (["--check", "."], "the archive is not a file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_made(
    place: Path, args: list[str], message: str
) -> None:
    result = run(*args)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {message}"
    assert sorted(path.name for path in place.iterdir()) == ["model.joblib"]


@pytest.mark.parametrize(
    "args",
    [[], ["model.joblib"], ["-o", "a.tgz"], ["--check", "a.tgz", "-o", "b.tgz"], ["--check", "a.tgz", "model.joblib"]],
)
def test_a_command_that_makes_no_sense_is_a_usage_error(args: list[str]) -> None:
    assert run(*args).exit_code == 2


def test_an_archive_that_does_not_pass_its_own_check_is_not_made(place: Path) -> None:
    (place / "model.py").write_text("def handle(:")
    (place / "serving.properties").write_text("job_queue_size=0")
    result = run(".", "-o", "a.tgz")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "Error: serving.properties: job_queue_size is '0', expected a whole number of 1 or more",
        "Error: model.py, line 1: invalid syntax",
    ]
    assert sorted(path.name for path in place.iterdir()) == ["model.joblib", "model.py", "serving.properties"]


def test_check_passes_what_package_made(place: Path) -> None:
    run("model.joblib", "-o", "a.zip", "--set", "minworkers=1")
    result = run("--check", "a.zip")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "serving.properties: the key 'minworkers' is not known, is minWorkers meant?",
        "the model is model.joblib",
        "2 files, 20 bytes unpacked",
    ]


def test_check_fails_with_the_errors_a_line_each(place: Path) -> None:
    (place / "README.md").write_text("no model")
    (place / "model.joblib").unlink()
    with tarfile.open(place / "bad%name.tar", "w") as tar:
        tar.add("README.md")
    result = run("--check", "bad%name.tar")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"Error: 'bad%name.tar' gives no valid model name: {NAME_RULE}",
        f"Error: no model file: expected model.joblib, or one file ending in one of {', '.join(MODEL_SUFFIXES)}",
    ]
    assert result.stdout.splitlines() == ["1 file, 8 bytes unpacked"]


def test_a_file_that_is_no_archive_fails_the_check(place: Path) -> None:
    (place / "a.tgz").write_bytes(b"no archive")
    result = run("--check", "a.tgz")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: the archive is no tar, gzip or zip file: it begins with b'no archive'\n"
