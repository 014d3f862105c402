"""A model that hangs, in a request or while it loads: who waits for it is told, its worker is replaced, and where it
hung is in the log."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, events, reasons, write_coded

# Seconds; as short as a request of a test may take without being thought to hang on a busy host.
LIMIT = 0.5
_PROPERTIES = f"maxWorkers=1\noption.predict_timeout={LIMIT}\n"
_LOADING_PROPERTIES = f"option.model_loading_timeout={LIMIT}\n"
# Seconds that a hung request may take to be answered: the limit, the time until it is looked at, and a busy host.
SOON = LIMIT + 1.5

_HANGING = """
def wait_for_ever_in_{name}():
    while True:
        time.sleep(60)
"""
# Answers its process, or hangs where it is asked to.
_HANG = "if asked == 'hang':\n    wait_for_ever_in_{name}()\nreturn Output().add_as_json(os.getpid())"

_BATCHING = """
import time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    output = Output()
    batches = inputs.get_batches()
    for index, one in enumerate(batches):
        asked = one.get_as_string()
        if asked == "hang":
            time.sleep(60)
        if inputs.is_batch():
            output.add(f"{asked} of {len(batches)}", batch_index=index)
        else:
            output.add(f"{asked} alone")
    return output
"""


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT)


@pytest.fixture
def store(server: Server) -> Path:
    return Path(server.settings["model_store"])


def write_hanging(store: Path, name: str, *, load: str = "") -> None:
    place = name.replace("-", "_")
    write_coded(store / name, _HANG.format(name=place), load=_HANGING.format(name=place) + load, properties=_PROPERTIES)


def assert_timed_out(answer: httpx.Response, started: float) -> None:
    assert_error(answer, 504, "PredictTimeoutException", f"{LIMIT:g} seconds", "predict_timeout")
    assert LIMIT <= time.monotonic() - started < SOON


def test_a_request_that_hangs_is_answered_its_worker_replaced_and_its_stack_logged(server: Server, store: Path) -> None:
    write_hanging(store, "hung")
    before = ask(server, "hung").json()
    started = time.monotonic()
    assert_timed_out(ask(server, "hung", "hang"), started)
    after = ask(server, "hung")
    assert after.status_code == 200
    assert after.json() != before
    wait_until(lambda: not psutil.pid_exists(before), "the end of the worker that hung")
    (stuck,) = events(server, "hung", "worker_stuck")
    assert stuck["pid"] == before
    assert reasons(server, "hung", "worker_stopped") == ["predict_timeout"]
    # Where it hung.
    log = server.log.read_text()
    assert "in wait_for_ever_in_hung" in log
    assert f"{store}/hung/model.py" in log


def test_who_waits_behind_a_request_that_hangs_is_answered_by_the_next_worker(
    server: Server, store: Path, threads: ThreadPoolExecutor
) -> None:
    write_hanging(store, "behind")
    before = ask(server, "behind").json()
    started = time.monotonic()
    hung = threads.submit(ask, server, "behind", "hang")
    wait_until(lambda: server.describe("behind")["workers"][0]["status"] == "BUSY", "a worker that hangs")
    waiting = [threads.submit(ask, server, "behind") for _ in range(3)]
    assert_timed_out(hung.result(), started)
    (after,) = {request.result().json() for request in waiting}
    assert after != before


def test_of_a_batch_only_the_one_that_hangs_fails(server: Server, store: Path, threads: ThreadPoolExecutor) -> None:
    properties = f"{_PROPERTIES}batch_size=4\nmax_batch_delay=10000\n"
    models.write_model(store / "batched", files={"model.py": _BATCHING, "serving.properties": properties})
    asked = {name: threads.submit(ask, server, "batched", name) for name in ("a", "hang", "b", "c")}
    assert_error(asked.pop("hang").result(), 504, "PredictTimeoutException")
    assert {name: request.result().text for name, request in asked.items()} == {name: f"{name} alone" for name in asked}
    wait_until(lambda: len(events(server, "batched", "worker_stopped")) == 2, "the end of the workers that hung")
    # Together with the others, and alone.
    assert len(events(server, "batched", "worker_stuck")) == 2


def test_one_that_takes_no_notice_of_the_signal_is_killed(server: Server, store: Path) -> None:
    write_hanging(store, "deaf", load="signal.signal(signal.SIGABRT, signal.SIG_IGN)\n")
    before = ask(server, "deaf").json()
    started = time.monotonic()
    assert_timed_out(ask(server, "deaf", "hang"), started)
    # Which is not waited for.
    assert ask(server, "deaf").json() != before
    assert time.monotonic() - started < SOON
    wait_until(lambda: not psutil.pid_exists(before), "the end of the worker that hung")


def test_one_that_was_stopped_is_ended_too(server: Server, store: Path) -> None:
    write_hanging(store, "frozen")
    before = ask(server, "frozen").json()
    os.kill(before, signal.SIGSTOP)
    started = time.monotonic()
    assert_timed_out(ask(server, "frozen"), started)
    assert ask(server, "frozen").json() != before
    wait_until(lambda: not psutil.pid_exists(before), "the end of the worker that was stopped")


def test_a_load_that_never_ends_is_told_to_all_who_wait_and_to_nobody_else(
    server: Server, store: Path, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    mended = tmp_path / "mended"
    waiting = f"while not os.path.exists({str(mended)!r}): time.sleep(0.01)"
    load = f"def load_for_ever():\n    {waiting}\nload_for_ever()"
    write_coded(store / "endless", load=load, properties=_LOADING_PROPERTIES)
    write_coded(store / "neighbour")
    assert ask(server, "neighbour").status_code == 200
    started = time.monotonic()
    asked = [threads.submit(ask, server, "endless") for _ in range(3)]
    wait_until(lambda: server.describe("endless")["requestInQueue"] == 3, "all in the queue")
    assert ask(server, "neighbour").status_code == 200
    assert not any(request.done() for request in asked)
    for request in asked:
        assert_error(request.result(), 424, "ModelLoadingTimeoutException", f"{LIMIT:g} seconds")
    assert time.monotonic() - started < SOON + 1
    described = server.describe("endless")
    assert described["failure"]["type"] == "ModelLoadingTimeoutException"
    wait_until(lambda: not server.describe("endless")["workers"], "the end of its worker")
    assert server.describe("endless")["status"] == "FAILED"
    assert "in load_for_ever" in server.log.read_text()
    assert reasons(server, "endless", "worker_stopped") == ["model_loading_timeout"]
    mended.touch()
    wait_until(lambda: ask(server, "endless").status_code == 200, "the end of the back-off", deadline=5)
    assert "failure" not in server.describe("endless")


def test_whoever_registers_a_model_that_never_loads_is_told(server: Server, tmp_path: Path) -> None:
    directory = write_coded(tmp_path / "never", load="time.sleep(60)", properties=_LOADING_PROPERTIES)
    registered = server.management.post("/models", params={"url": str(directory)})
    assert_error(registered, 424, "ModelLoadingTimeoutException", f"{LIMIT:g} seconds")
    assert server.management.get("/models/never").status_code == 404
