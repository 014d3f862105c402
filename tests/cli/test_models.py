"""`mmserve models`: the management API from the command line; `mmserve config`: every setting and its source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmserve.config import table
from tests import models_for_tests as models
from tests.cli.command import Command


@pytest.fixture
def running(mmserve: Command, store: Path) -> Iterator[Command]:
    for number in range(250):
        (store / f"model-{number:03}").mkdir()
    models.write_archive(store / "linear.tar.gz", models.linear())
    mmserve.succeed("start", f"--model-store={store}")
    yield mmserve
    assert mmserve.succeed("stop") == "stopped\n"


def test_models_are_managed(running: Command, store: Path, tmp_path: Path) -> None:
    listed = [line.split("\t") for line in running.succeed("models", "list").splitlines()]
    assert [name for name, _, _ in listed] == ["linear", *(f"model-{number:03}" for number in range(250))]
    assert listed[0] == ["linear", "SLEEPING", str(store / "linear.tar.gz")]
    limited = running.run("models", "list", "--limit=120")
    assert (limited.returncode, len(limited.stdout.splitlines()), limited.stderr) == (0, 120, "there are more\n")

    outside = models.write_archive(tmp_path / "outside.tar.gz", models.linear())
    registered = running.succeed("models", "register", str(outside), "--name=other", "--min-worker=2", "--batch-size=3")
    assert registered == 'Model "other" registered.\n'
    described = json.loads(running.succeed("models", "describe", "other"))
    assert (described["batchSize"], len(described["workers"]), described["status"]) == (3, 2, "READY")
    assert running.succeed("models", "scale", "other", "--min-worker=1", "--max-worker=4") == "Workers scaled\n"
    described = json.loads(running.succeed("models", "describe", "other"))
    assert (described["maxWorkers"], len(described["workers"])) == (4, 1)

    # As all other commands, which say it behind their names.
    which = f"--runtime-dir={running.environment['MMSERVE_RUNTIME_DIR']}"
    elsewhere = {"MMSERVE_RUNTIME_DIR": str(tmp_path)}
    assert json.loads(running.succeed("models", "describe", "other", which, **elsewhere))["modelName"] == "other"

    assert running.fail("models", "register", str(outside), "--name=other") == (
        "Error: Model other is already registered."
    )
    assert running.succeed("models", "unregister", "other") == 'Model "other" unregistered\n'
    assert running.fail("models", "describe", "other") == "Error: Model not found: other"
    refused = running.fail("models", "register", "nowhere.zip")
    assert refused.startswith("Error: Model not found: nowhere.zip: there is neither a directory nor an archive at /")
    models.write_model(tmp_path / "broken", files={"model.py": "raise OSError('no disk')"})
    assert "no disk" in running.fail("models", "register", str(tmp_path / "broken"))


def test_every_setting_is_listed_with_its_source(mmserve: Command) -> None:
    (mmserve.directory / "mmserve.toml").write_text('batch_size = 5\npreload = ["json", "csv"]\n')
    environment = {"MMSERVE_CONFIG": "mmserve.toml", "MMSERVE_BATCH_SIZE": "6", "MMSERVE_PRELOAD": "json, csv"}
    del mmserve.environment["MMSERVE_PRELOAD"]
    environment.pop("MMSERVE_PRELOAD")
    text = mmserve.succeed("config", "--job-queue-size=7", **environment)
    rows = {name: rest for name, *rest in (line.split("\t") for line in text.splitlines())}
    assert list(rows) == [row.name for row in table()]
    for row in table():
        value, source, flag, variable, meaning = rows[row.name]
        assert (flag, variable, meaning) == (row.flag, row.variable, row.description)
        assert source
        if source == "default":
            assert value == ("" if row.default in (None, ()) else str(row.default))
    assert rows["job_queue_size"][:2] == ["7", "--job-queue-size"]
    assert rows["batch_size"][:2] == ["6", "MMSERVE_BATCH_SIZE"]
    assert rows["preload"][:2] == ["json, csv", "mmserve.toml: preload"]
    assert rows["request_timeout"][:2] == ["60.0", "default"]
