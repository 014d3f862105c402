"""What cannot be started is told in one line, and leaves nothing running."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmserve.cli.models import models
from mmserve.errors import StartError
from mmserve.http.listener import bind
from mmserve.models.store import DirectoryStore
from tests.cli.command import Command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model-store=none"], "model store does not exist"),
        (["--model-store=a-file"], "not a directory: a-file"),
        (["--cache-dir=a-file"], "cache_dir a-file"),
        (["--runtime-dir=a-file/run"], "a-file/run"),
        (["--inference-address=https://127.0.0.1:0", "--foreground"], "https://127.0.0.1:0"),
        (["--config=unknown.toml"], "unknown.toml: unknown setting: que_size"),
    ],
)
def test_one_clear_line(mmserve: Command, arguments: list[str], said: str) -> None:
    (mmserve.directory / "a-file").touch()
    (mmserve.directory / "unknown.toml").write_text("que_size = 1")
    line = mmserve.fail("start", *arguments)
    assert line.startswith("Error: ")
    assert said in line
    assert not mmserve.processes()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1", "looks like http://127.0.0.1:8080"),
        ("https://127.0.0.1:0", "looks like http://127.0.0.1:8080"),
        ("http://127.0.0.1:0/path", "looks like http://127.0.0.1:8080"),
        ("somewhere", "looks like http://127.0.0.1:8080"),
        ("", "looks like http://127.0.0.1:8080"),
        ("http://127.0.0.1:99999", "out of range"),
        ("http://[::1:0", "Not an address"),
        ("http://no-such-host.invalid:0", "no-such-host"),
        (f"http://{'a' * 70}:0", "aaa"),
        ("http://192.0.2.1:0", "Cannot assign"),
    ],
)
def test_an_address_that_is_none_is_named(address: str, said: str) -> None:
    with pytest.raises(StartError) as raised:
        bind(address)
    assert address in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_store_that_may_not_be_read_is_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever runs the tests may be allowed to read everything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StartError, match=f"may not be read: {store}"):
        DirectoryStore(str(store))


def test_an_unknown_flag_is_named(mmserve: Command) -> None:
    done = mmserve.run("start", "--batch-sise=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--batch-sise" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_for_run_files_that_others_may_write_to_is_refused(mmserve: Command) -> None:
    directory = mmserve.directory / "open"
    directory.mkdir()
    directory.chmod(0o777)
    assert f"runtime_dir {directory}" in mmserve.fail("start", MMSERVE_RUNTIME_DIR=str(directory))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1/", "no address", "::"])
def test_models_of_nothing_that_runs(address: str, tmp_path: Path) -> None:
    arguments = ["list", f"--management-address={address}", f"--runtime-dir={tmp_path}"]
    result = CliRunner().invoke(models, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_module_that_cannot_be_preloaded_is_no_reason_not_to_start(mmserve: Command, store: Path) -> None:
    assert mmserve.succeed("start", f"--model-store={store}", "--preload=no_such_module").startswith("mmserve serves 0")
    assert mmserve.succeed("stop") == "stopped\n"
