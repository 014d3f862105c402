"""`mmserve events`: what the running server did and why, in lines, so far and as it happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import models_for_tests as models
from tests.cli.command import Command
from tests.servers import DEADLINE, LIGHT

_ECHO = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(inputs.get_as_bytes())
"""
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  (?P<kind>\S+)  (?P<model>\S+)(?P<said>  .+)?")


class Watched:
    """A running server, and the command that looks at it."""

    def __init__(self, mmserve: Command) -> None:
        self.mmserve = mmserve
        status = dict(line.split("\t") for line in mmserve.succeed("status").splitlines())
        self._url = status["inference"]
        self.pid = int(status["process"])

    def wake(self, model: str) -> None:
        response = httpx.post(f"{self._url}/predictions/{model}", content=b"x", timeout=DEADLINE, trust_env=False)
        assert response.status_code == 200

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        return self.mmserve.popen("events", "--follow", *arguments)


@pytest.fixture
def watched(mmserve: Command, store: Path) -> Iterator[Watched]:
    for name in "ab":
        models.write_model(store / name, files={"model.py": _ECHO})
    mmserve.environment["MMSERVE_PRELOAD"] = LIGHT
    mmserve.succeed("start", f"--model-store={store}")
    yield Watched(mmserve)
    mmserve.run("stop")


def line_of(process: subprocess.Popen[str]) -> re.Match[str]:
    assert process.stdout is not None
    match = _LINE.fullmatch(process.stdout.readline().rstrip("\n"))
    assert match is not None
    return match


def test_events_are_a_line_each(watched: Watched) -> None:
    watched.wake("a")
    watched.wake("b")
    lines = watched.mmserve.succeed("events").splitlines()
    found = [match["model"] for line in lines if (match := _LINE.fullmatch(line))]
    assert len(found) == len(lines) >= 2
    assert {"a", "b"} <= set(found)
    assert len(watched.mmserve.succeed("events", "--lines=1").splitlines()) == 1
    assert watched.mmserve.succeed("events", "-n0") == ""
    # There may have been others since.
    of_b = [line for line, model in zip(lines, found, strict=True) if model == "b"]
    assert watched.mmserve.succeed("events", "--model=b").splitlines()[: len(of_b)] == of_b
    objects = [json.loads(line) for line in watched.mmserve.succeed("events", "--json", "-n1000").splitlines()]
    assert [told["id"] for told in objects] == list(range(1, len(objects) + 1))
    assert [told["model"] or "-" for told in objects][: len(found)] == found


def test_events_are_followed_until_the_user_has_seen_enough_or_the_server_has_gone(watched: Watched) -> None:
    watched.wake("a")
    until_enough, until_the_end = watched.follow("--model=b"), watched.follow("-n1")
    of_a = watched.follow("-n1", "--model=a")
    line_of(until_the_end)
    watched.wake("b")
    assert line_of(until_enough)["model"] == "b"
    until_enough.send_signal(signal.SIGINT)
    said, complained = until_enough.communicate(timeout=DEADLINE)
    assert (until_enough.returncode, complained) == (0, "")
    assert all(_LINE.fullmatch(line) for line in said.splitlines())

    os.kill(watched.pid, signal.SIGTERM)
    said, complained = until_the_end.communicate(timeout=DEADLINE)
    assert (until_the_end.returncode, complained) == (0, "")
    assert "server_stopping" in said
    # Who follows one model is not told that the server stops.
    _, complained = of_a.communicate(timeout=DEADLINE)
    assert of_a.returncode == 1
    (line,) = complained.splitlines()
    assert line.startswith("Error: the server has gone: ")


def test_without_a_server_there_are_no_events(mmserve: Command) -> None:
    address = "--management-address=http://127.0.0.1:9"
    for arguments in ([], ["--follow"]):
        assert mmserve.fail("events", address, *arguments).startswith("Error: no answer from http://127.0.0.1:9: ")
