"""A model that dies again and again: each of its callers is told why, it is not started for ever, it hurts nobody else,
and it is served once it is mended, without anybody's doing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.http.errors import assert_error
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, count, counting, events, scale, stays, write_coded

_DIE = "os.kill(os.getpid(), signal.SIGSEGV)"
# Seconds of the first back-off, less what a test may lose before it looks.
_BLOCKED = 0.6
# More requests than a model may die of in a row before it is thought to be at fault.
_MANY = 20


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT)


@pytest.fixture
def store(server: Server) -> Path:
    return Path(server.settings["model_store"])


def starts(server: Server, model: str) -> int:
    return len(events(server, model, "worker_started"))


def has_failed(server: Server, model: str) -> bool:
    return "failure" in server.describe(model)


def kill_all(server: Server, model: str) -> None:
    """Asks a model that dies of every request until it is thought to be at fault."""
    for _ in range(_MANY):
        assert_error(ask(server, model), 424, "WorkerDiedException", "SIGSEGV")
        if has_failed(server, model):
            return
    raise AssertionError(f"{model} has died of {_MANY} requests, and is still being started")


def test_a_model_that_dies_of_every_request_is_not_started_for_ever(server: Server, store: Path) -> None:
    write_coded(store / "deadly", _DIE)
    kill_all(server, "deadly")
    failed_at = time.monotonic()
    described = server.describe("deadly")
    assert described["status"] == "FAILED"
    assert described["failure"]["type"] == "WorkerDiedException"
    assert "SIGSEGV" in described["failure"]["message"]
    before = starts(server, "deadly")
    while time.monotonic() < failed_at + _BLOCKED:
        began = time.monotonic()
        assert_error(ask(server, "deadly"), 424, "WorkerDiedException", "SIGSEGV")
        assert time.monotonic() - began < _BLOCKED
        assert server.client.get("/ping").status_code == 200
    assert starts(server, "deadly") == before


def test_all_who_ask_at_once_for_a_model_that_dies_are_told_so(
    server: Server, store: Path, threads: ThreadPoolExecutor
) -> None:
    write_coded(store / "crowded", _DIE)
    for answer in threads.map(lambda _: ask(server, "crowded"), range(40)):
        assert_error(answer, 424, "WorkerDiedException", "SIGSEGV")
    # Were each of them tried twice, there would be 80.
    assert starts(server, "crowded") <= 20


def test_one_that_dies_again_when_it_is_tried_is_at_fault_for_longer(server: Server, store: Path) -> None:
    write_coded(store / "again", _DIE)
    kill_all(server, "again")
    before = starts(server, "again")

    def tried() -> bool:
        assert_error(ask(server, "again"), 424, "WorkerDiedException", "SIGSEGV")
        return starts(server, "again") > before

    wait_until(tried, "another try", deadline=5)
    # The one request that is let through may take its second try, and no other gets one.
    for _ in range(_MANY):
        assert_error(ask(server, "again"), 424, "WorkerDiedException", "SIGSEGV")
    assert starts(server, "again") <= before + 2
    assert server.describe("again")["failure"]["attempts"] == 2


def test_once_its_file_is_replaced_it_is_served(server: Server, store: Path) -> None:
    write_coded(store / "mended", _DIE)
    kill_all(server, "mended")
    write_coded(store / "mended")
    wait_until(lambda: ask(server, "mended").status_code == 200, "the end of the back-off", deadline=5)
    assert server.describe("mended")["status"] == "READY"
    assert not has_failed(server, "mended")


def test_one_that_is_to_run_is_tried_again_without_any_request(server: Server, store: Path, tmp_path: Path) -> None:
    mended, loads = tmp_path / "mended", tmp_path / "loads"
    load = f"{counting(loads)}\nif not os.path.exists({str(mended)!r}): os._exit(3)"
    write_coded(store / "alone", load=load)
    assert_error(scale(server, "alone", min_worker=1), 424, "WorkerDiedException", "exit code 3")
    tried = count(loads)
    assert stays(lambda: count(loads), tried)
    mended.touch()
    wait_until(lambda: server.describe("alone")["status"] == "READY", "another try by itself", deadline=5)
    assert count(loads) == tried + 1
    assert ask(server, "alone").status_code == 200
    assert not has_failed(server, "alone")


def test_one_that_dies_after_it_was_loaded_is_tried_again_without_any_request(
    server: Server, store: Path, tmp_path: Path
) -> None:
    mended, loads = tmp_path / "mended", tmp_path / "loads"
    dying = f"import threading\nif not os.path.exists({str(mended)!r}): threading.Timer(0.02, os._exit, [3]).start()"
    write_coded(store / "later", load=f"{counting(loads)}\n{dying}")
    assert scale(server, "later", min_worker=1, synchronous="false").status_code == 202
    wait_until(lambda: has_failed(server, "later"), "a failure")
    tried = count(loads)
    assert stays(lambda: count(loads), tried)
    mended.touch()
    wait_until(lambda: count(loads) == tried + 1, "another try by itself", deadline=5)
    assert stays(lambda: (len(server.worker_pids("later")), count(loads)), (1, tried + 1))


def test_of_many_requests_exactly_those_fail_that_it_dies_of(
    server: Server, store: Path, threads: ThreadPoolExecutor
) -> None:
    write_coded(store / "seldom", f"if asked == 'die':\n    {_DIE}\nreturn Output().add(asked)")
    asked = ["die" if number % 25 == 7 else f"n{number}" for number in range(200)]
    answers = threads.map(lambda what: ask(server, "seldom", what), asked)
    for what, answer in zip(asked, answers, strict=True):
        if what == "die":
            assert_error(answer, 424, "WorkerDiedException", "SIGSEGV")
        else:
            assert (answer.status_code, answer.text) == (200, what)
    assert len(events(server, "seldom", "worker_died")) == 2 * asked.count("die")
    assert not has_failed(server, "seldom")


def test_one_in_a_crash_loop_hurts_no_other_model(server: Server, store: Path) -> None:
    write_coded(store / "neighbour")
    before = ask(server, "neighbour").json()
    write_coded(store / "looping", _DIE)
    for _ in range(_MANY):
        assert_error(ask(server, "looping"), 424, "WorkerDiedException")
        assert ask(server, "neighbour").json() == before
