"""A server is started, looked at and stopped by the command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests import models_for_tests as models
from tests.cli.command import Command
from tests.http.gates import Gate
from tests.servers import DEADLINE, wait_until

STARTED = re.compile(
    r"mmserve serves (?P<models>\d+) models?(?: of (?P<store>\S+))? at (?P<url>http://\S+?)"
    r"(?:, management at (?P<management>http://\S+))? \(process (?P<pid>\d+)\)\n"
)


def start(mmserve: Command, *arguments: str, **environment: str) -> re.Match[str]:
    """Starts a server; what it says of itself is one line."""
    match = STARTED.fullmatch(mmserve.succeed("start", *arguments, **environment))
    assert match is not None
    return match


def ask(url: str, model: str, content: str) -> httpx.Response:
    return httpx.post(f"{url}/predictions/{model}", content=content, timeout=DEADLINE, trust_env=False)


def test_a_server_for_one_model_says_so(mmserve: Command, tmp_path: Path) -> None:
    started = start(mmserve, f"--model={models.write_model(tmp_path / 'linear', models.linear())}")
    assert (started["models"], started["store"]) == ("1", None)


def test_a_server_answers_when_the_command_returns_and_is_gone_when_it_is_stopped(
    mmserve: Command, store: Path
) -> None:
    models.write_archive(store / "linear.tar.gz", models.linear())
    started = start(mmserve, f"--model-store={store}")
    assert (started["models"], started["store"], started["management"]) == ("1", str(store), None)
    assert ask(started["url"], "linear", "[[1.0]]").json() == {"predictions": [3.0]}

    status = dict(line.split("\t") for line in mmserve.succeed("status").splitlines())
    assert status["process"] == started["pid"]
    assert status["inference"] == status["management"] == started["url"]
    assert status["model store"] == str(store)
    assert (status["models"], status["workers"], status["failed models"]) == ("1", "1 (1 READY)", "0")
    told = json.loads(mmserve.succeed("status", "--json"))
    assert (told["pid"], told["workersByState"]) == (int(started["pid"]), {"READY": 1})
    assert 0 < told["memory"] < told["memoryUsed"] < told["memoryBudget"]

    again = mmserve.fail("start", f"--model-store={store}")
    assert "already running" in again
    assert started["pid"] in again

    assert mmserve.succeed("stop") == "stopped\n"
    assert not mmserve.processes()
    (log,) = (mmserve.directory / "run").iterdir()
    assert f"mmserve serves 1 model of {store} at {started['url']}" in log.read_text()
    assert "not running" in mmserve.fail("stop", status=3)
    # A server that was started with another directory answers, and is not found.
    assert "or with another --runtime-dir than" in mmserve.fail("status", status=3)


def test_what_was_accepted_is_answered_before_the_server_ends(mmserve: Command, store: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.write_model(store / "gated")
    url = start(mmserve, f"--model-store={store}", MMSERVE_PRELOAD="numpy")["url"]
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(ask, url, "gated", "running")
        gate.wait_for("running")
        waiting = threads.submit(ask, url, "gated", "waiting")
        described = f"{url}/models/gated"
        wait_until(lambda: httpx.get(described, trust_env=False).json()["requestInQueue"] == 1, "a waiting request")
        stopping = mmserve.popen("stop")
        wait_until(lambda: httpx.get(f"{url}/ping", trust_env=False).status_code == 503, "the server to be stopping")
        refused = ask(url, "gated", "late")
        assert (refused.status_code, refused.json()["message"]) == (503, "The server is stopping.")
        assert refused.headers["retry-after"]
        assert stopping.poll() is None
        gate.let("running", "waiting")
        assert (running.result().text, waiting.result().text) == ("running", "waiting")
    stdout, stderr = stopping.communicate(timeout=DEADLINE)
    assert (stopping.returncode, stdout, stderr) == (0, "stopped\n", "")
    assert not mmserve.processes()


def test_a_server_in_the_foreground_ends_with_an_interrupt_of_its_terminal(mmserve: Command, store: Path) -> None:
    models.write_model(store / "coded", files={"model.py": "def handle(inputs): pass"})
    process = mmserve.popen("start", "--foreground", f"--model-store={store}", "--preload=numpy")
    assert process.stdout is not None
    match = STARTED.fullmatch(process.stdout.readline())
    assert match is not None
    assert int(match["pid"]) == process.pid
    assert ask(match["url"], "coded", "").status_code == 204
    # As a terminal does it: to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    stdout, log = process.communicate(timeout=DEADLINE)
    assert (process.returncode, stdout) == (0, "")
    assert "Traceback" not in log
    assert "ERROR" not in log
    assert not mmserve.processes()


def test_what_a_killed_server_left_does_not_matter(mmserve: Command) -> None:
    killed = start(mmserve)
    os.kill(int(killed["pid"]), signal.SIGKILL)
    wait_until(lambda: not mmserve.processes(), "the end of the template")
    assert list((mmserve.directory / "run").glob("*.json"))
    assert "not running" in mmserve.fail("status", status=3)
    assert "not running" in mmserve.fail("stop", status=3)
    started = start(mmserve)
    assert started["pid"] != killed["pid"]
    assert json.loads(mmserve.succeed("status", "--json"))["pid"] == int(started["pid"])
    assert mmserve.succeed("stop") == "stopped\n"


def test_each_api_can_have_an_address_of_its_own(mmserve: Command) -> None:
    started = start(mmserve, "--management-address=127.0.0.1:0")
    assert started["management"] not in (None, started["url"])
    told = json.loads(mmserve.succeed("status", "--json", "--management-address=127.0.0.1:0"))
    assert told["managementAddress"] == started["management"]
    assert mmserve.succeed("stop", "--management-address", "127.0.0.1:0") == "stopped\n"


def test_a_port_in_use_is_named(mmserve: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for arguments in ([f"--inference-address={address}"], [f"--management-address={address}", "--foreground"]):
            line = mmserve.fail("start", *arguments)
            assert line.startswith(f"Error: {address}: Address already in use")
    assert not mmserve.processes()


def test_settings_are_those_of_the_flag_before_the_environment_before_the_file(mmserve: Command) -> None:
    (mmserve.directory / "mmserve.toml").write_text("job_queue_size = 5\nbatch_size = 5\nmax_batch_delay = 5\n")
    environment = {"MMSERVE_JOB_QUEUE_SIZE": "6", "MMSERVE_BATCH_SIZE": "6"}
    url = start(mmserve, "--job-queue-size=7", "--config=mmserve.toml", **environment)["url"]
    directory = models.write_model(mmserve.directory / "linear", models.linear())
    mmserve.succeed("models", "register", str(directory))
    described = httpx.get(f"{url}/models/linear", trust_env=False).json()
    assert (described["queueSize"], described["batchSize"], described["maxBatchDelay"]) == (7, 6, 5)
    assert described["maxIdleSeconds"] == 60.0
    assert mmserve.succeed("stop") == "stopped\n"
