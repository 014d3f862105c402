"""What was accepted is finished before a model or the server goes, for as long as that is allowed to take."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.http.errors import assert_error
from tests.http.raw import RawClient, Response, post
from tests.servers import DEADLINE, LIGHT, Server, wait_until
from tests.supervision.coded import ask, write_coded

_DRAIN_TIMEOUT = 1.0
# Seconds by which it may be later, on a busy host.
_SLACK = 3.0
_HANG = "while asked == 'hang':\n    time.sleep(60)\nreturn Output().add(asked)"


@pytest.fixture
def server(serve: Callable[..., Server], store: Path) -> Server:
    write_coded(store / "hanging", _HANG, properties="maxWorkers=1\n")
    write_coded(store / "slow", "time.sleep(0.02)\nreturn Output().add(asked)", properties="maxWorkers=2\n")
    return serve(model_store=store, preload=LIGHT, drain_timeout=_DRAIN_TIMEOUT)


def hang(server: Server, threads: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """One request that a worker hangs with, and two that wait behind it."""
    asked = [threads.submit(ask, server, "hanging", "hang")]
    wait_until(lambda: [worker["status"] for worker in server.describe("hanging")["workers"]] == ["BUSY"], "it to hang")
    asked += [threads.submit(ask, server, "hanging", what) for what in ("a", "b")]
    wait_until(lambda: server.describe("hanging")["requestInQueue"] == 2, "two to wait")
    return asked


def test_a_model_that_hangs_is_unregistered_in_time_and_all_who_wait_are_told(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    asked = hang(server, threads)
    began = time.monotonic()
    assert server.management.delete("/models/hanging").status_code == 200
    assert _DRAIN_TIMEOUT <= time.monotonic() - began < _DRAIN_TIMEOUT + _SLACK
    for request in asked:
        assert_error(request.result(), 504, "DeadlineExceededException", "unregistered")
    assert server.management.get("/models/hanging").status_code == 404
    assert ask(server, "slow").status_code == 200


def test_a_server_with_a_model_that_hangs_ends_in_time_and_all_who_wait_are_told(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    asked = hang(server, threads)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0
    assert _DRAIN_TIMEOUT <= time.monotonic() - began < _DRAIN_TIMEOUT + _SLACK
    for request in asked:
        answer = request.result()
        assert answer.status_code in (503, 504), answer.text
        assert answer.headers["connection"] == "close"


def ask_until_it_ends(server: Server, caller: int) -> dict[str, Response]:
    """What one connection is answered that is asked on and on, until an answer is said to be its last, or until it is
    closed between two requests."""
    answers: dict[str, Response] = {}
    with RawClient(server) as client:
        for name in (f"{caller}-{number}" for number in itertools.count()):
            client.send(post("/predictions/slow", name.encode(), "Content-Type: text/plain"))
            try:
                answers[name] = client.response()
            except (AssertionError, ConnectionResetError):
                return answers
            if answers[name].headers.get("connection") == "close":
                assert client.rest() == b""
                return answers
    raise AssertionError("not reached")


def test_a_server_that_is_stopped_under_load_answers_all_that_it_has_accepted(
    server: Server, store: Path, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    done = tmp_path / "done"
    note = f"open({str(done)!r}, 'a').write(asked + '\\n')"
    write_coded(store / "slow", f"{note}\ntime.sleep(0.02)\nreturn Output().add(asked)", properties="maxWorkers=2\n")
    calling = [threads.submit(ask_until_it_ends, server, caller) for caller in range(12)]
    wait_until(lambda: server.describe("slow")["requestInQueue"] > 5, "a queue")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE) == 0
    answers: dict[str, Response] = {}
    for caller in calling:
        answers.update(caller.result())
    answered = [name for name, answer in answers.items() if answer.status == 200]
    assert sorted(done.read_text().split()) == sorted(answered)
    assert all(answers[name].body == name.encode() for name in answered)
    # The others came when it was stopping.
    assert {answer.status for answer in answers.values()} <= {200, 503}
    # Those at least that were waiting and at work when it was told.
    last = [answer for answer in answers.values() if answer.headers.get("connection") == "close"]
    assert len(last) > 5
