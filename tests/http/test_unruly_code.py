"""What a model's code does to its own process is its own affair: the caller gets an answer, and the worker goes on."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.http.errors import assert_error
from tests.models_for_tests import write_model
from tests.servers import LIGHT, Server, wait_until

MIB = 1024 * 1024
_CODE = """
import os, signal, sys, warnings
from djl_python import Output

def close_standard_error():
    sys.stderr.close()
    raise ValueError("nowhere to write that to")

def print_much():
    print("x" * 4 * 1024 * 1024)

def come_back_from_fork():
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return Output().add("the worker")
    return Output().add("its fork")

def exit_fork():
    pid = os.fork()
    if not pid:
        sys.exit(3)
    return Output().add_as_json(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def leave():
    os.chdir("/")
    sys.path.clear()

def set_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

def warn():
    warnings.simplefilter("error")

def say_much():
    return Output().add("x").add_property("x-much", "y" * 4 * 1024 * 1024)

def stream_much():
    output = Output().add_property("x-much", "y" * 4 * 1024 * 1024)
    return output.add_stream_content(iter(["one", "two"]), None)

def handle(inputs):
    if not inputs.is_empty():
        return globals()[inputs.get_as_string()]() or Output().add("done")
"""


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    store = tmp_path_factory.mktemp("unruly")
    for name in ("unruly", "closing"):
        write_model(store / name, files={"model.py": _CODE, "serving.properties": "maxWorkers=1\n"})
    return serve_module(model_store=store, preload=LIGHT, max_request_size=MIB)


def ask(server: Server, deed: str, model: str = "unruly") -> httpx.Response:
    return server.client.post(f"/predictions/{model}", content=deed)


@pytest.fixture
def pid(server: Server) -> int:
    ask(server, "warn")
    (pid,) = server.worker_pids("unruly")
    return pid


@pytest.mark.parametrize("deed", ["print_much", "leave", "set_signals", "warn"])
def test_a_worker_answers_whatever_was_done_to_its_process(server: Server, pid: int, deed: str) -> None:
    assert [ask(server, deed).text for _ in range(2)] == ["done", "done"]
    assert server.worker_pids("unruly") == [pid]


def test_a_model_may_close_what_is_written_to(server: Server) -> None:
    ask(server, "warn", "closing")
    pids = server.worker_pids("closing")
    for _ in range(2):
        assert_error(ask(server, "close_standard_error", "closing"), 424, "ValueError")
    assert ask(server, "warn", "closing").text == "done"
    assert server.worker_pids("closing") == pids


def test_a_fork_does_not_answer_for_the_worker(server: Server, pid: int) -> None:
    assert ask(server, "come_back_from_fork").text == "the worker"
    assert ask(server, "exit_fork").text == "1"
    assert server.worker_pids("unruly") == [pid]
    wait_until(lambda: "a fork of the worker" in server.log.read_text(), "a word in the log")


@pytest.mark.parametrize("deed", ["say_much", "stream_much"])
def test_headers_larger_than_an_answer_may_be_are_refused(server: Server, pid: int, deed: str) -> None:
    assert_error(ask(server, deed), 424, "ResponseTooLargeException", "headers of 419")
    assert server.worker_pids("unruly") == [pid]
