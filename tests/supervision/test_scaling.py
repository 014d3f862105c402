"""A model gets the workers that its traffic needs, of those that it may have, and keeps none that it does not need."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmserve.supervision.limits import Limits
from tests.http.gates import Gate
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, count, counting, events, reasons, scale, stays, write_coded

# Answers after as many seconds as it is asked to, in which it needs no CPU.
_WAITING = "time.sleep(float(asked))\nreturn Output().add_as_json(os.getpid())"
# Needs a CPU for as many seconds.
_BUSY = """
end = time.thread_time() + float(asked)
while time.thread_time() < end:
    pass
return Output().add_as_json(os.getpid())
""".strip()


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT)


@pytest.fixture
def store(server: Server) -> Path:
    return Path(server.settings["model_store"])


def has_workers(server: Server, model: str, number: int) -> Callable[[], bool]:
    return lambda: len(server.worker_pids(model)) == number


@pytest.mark.parametrize("least", [0, 1])
def test_a_model_that_waits_gets_all_its_workers_and_keeps_only_its_minimum(
    server: Server, store: Path, gate: Gate, threads: ThreadPoolExecutor, least: int
) -> None:
    model = f"hot-{least}"
    gate.write_model(store / model, f"minWorkers={least}\nmaxWorkers=4\nmax_idle_time=0.3\n")
    first = threads.submit(ask, server, model, "first")
    gate.wait_for("first")
    # For long enough that it can be seen to need no CPU.
    assert stays(first.done, False, seconds=0.15)
    gate.let("first")
    assert first.result().text == "first"
    names = [f"n{number}" for number in range(8)]
    asked = [threads.submit(ask, server, model, name) for name in names]
    wait_until(lambda: sum(map(gate.holds, names)) == 4, "four workers at work")
    assert len(server.worker_pids(model)) == 4
    gate.let(*names)
    assert [request.result().text for request in asked] == names
    wait_until(has_workers(server, model, least), f"{least} workers, since nobody asks")
    assert server.describe(model)["status"] == ("READY" if least else "SLEEPING")
    assert reasons(server, model, "worker_started") == ["request", *["queue"] * 3]
    assert reasons(server, model, "worker_stopped") == ["idle"] * (4 - least)


def test_a_sleeping_model_that_is_hot_at_once_refuses_nobody(
    server: Server, store: Path, threads: ThreadPoolExecutor
) -> None:
    write_coded(store / "burst", _WAITING, properties="maxWorkers=4\n")
    answers = list(threads.map(lambda _: ask(server, "burst", "0.1"), range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert {answer.json() for answer in answers} == set(server.worker_pids("burst"))
    assert len(server.worker_pids("burst")) == 4
    first, *others = reasons(server, "burst", "worker_started")
    assert (first, set(others)) == ("request", {"queue"})


def test_a_model_that_computes_gets_no_more_workers_than_there_are_cpus(
    server: Server, store: Path, threads: ThreadPoolExecutor
) -> None:
    write_coded(store / "busy", _BUSY, properties="maxWorkers=16\n")
    answers = list(threads.map(lambda _: ask(server, "busy", "0.04"), range(24)))
    assert [answer.status_code for answer in answers] == [200] * 24
    assert len(events(server, "busy", "worker_started")) == math.ceil(Limits().cpus)


def test_light_traffic_after_a_burst_is_packed_onto_one_worker(
    server: Server, store: Path, threads: ThreadPoolExecutor
) -> None:
    write_coded(store / "packed", _WAITING, properties="maxWorkers=4\nmax_idle_time=0.3\n")
    assert {answer.status_code for answer in threads.map(lambda _: ask(server, "packed", "0.1"), range(16))} == {200}
    assert len(events(server, "packed", "worker_started")) == 4
    used = set()

    def left() -> list[int]:
        used.add(ask(server, "packed", "0").json())
        return server.worker_pids("packed")

    wait_until(lambda: len(left()) == 1, "the end of the other workers")
    assert used == set(left())


def test_the_minimum_is_restored_at_once_without_any_traffic(server: Server, store: Path) -> None:
    write_coded(store / "kept")
    assert scale(server, "kept", min_worker=2).status_code == 200
    killed, other = server.worker_pids("kept")
    os.kill(killed, signal.SIGKILL)

    def restored() -> bool:
        pids = server.worker_pids("kept")
        return len(pids) == 2 and other in pids and killed not in pids

    wait_until(restored, "another worker for the one that was killed", deadline=2)
    assert reasons(server, "kept", "worker_started") == ["min_workers"] * 3
    assert ask(server, "kept").status_code == 200


def test_a_lower_maximum_ends_the_busy_ones_after_what_they_are_at(
    server: Server, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    gate.write_model(store / "lowered", "minWorkers=3\nmaxWorkers=3\n")
    assert scale(server, "lowered", min_worker=3).status_code == 200
    names = ["a", "b", "c"]
    asked = [threads.submit(ask, server, "lowered", name) for name in names]
    for name in names:
        gate.wait_for(name)
    assert scale(server, "lowered", max_worker=1, synchronous="false").status_code == 202
    assert stays(lambda: len(server.worker_pids("lowered")), 3)
    gate.let(*names)
    assert [request.result().text for request in asked] == names
    wait_until(has_workers(server, "lowered", 1), "the end of two workers")
    assert reasons(server, "lowered", "worker_stopped") == ["max_workers"] * 2
    assert server.describe("lowered")["minWorkers"] == 1


def test_a_lower_maximum_ends_the_idle_ones_first(
    server: Server, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    gate.write_model(store / "idle-first", "minWorkers=3\nmaxWorkers=3\n")
    assert scale(server, "idle-first", min_worker=3).status_code == 200
    running = threads.submit(ask, server, "idle-first", "running")
    gate.wait_for("running")
    (busy,) = [worker["pid"] for worker in server.describe("idle-first")["workers"] if worker["status"] == "BUSY"]
    assert scale(server, "idle-first", max_worker=1).status_code == 200
    assert server.worker_pids("idle-first") == [busy]
    gate.let("running")
    assert running.result().text == "running"


def test_a_model_that_was_never_loaded_is_tried_by_one_worker(
    server: Server, store: Path, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    loads, opened = tmp_path / "loads", tmp_path / "opened"
    load = f"{counting(loads)}\nwhile not os.path.exists({str(opened)!r}): time.sleep(0.002)"
    write_coded(store / "untried", _WAITING, load=load, properties="maxWorkers=4\n")
    asked = [threads.submit(ask, server, "untried", "0.1") for _ in range(16)]
    wait_until(lambda: server.describe("untried")["requestInQueue"] == 16, "all in the queue")
    wait_until(lambda: count(loads), "a worker that loads")
    assert stays(lambda: count(loads), 1)
    opened.touch()
    assert {request.result().status_code for request in asked} == {200}
    assert count(loads) == 4


def test_what_holds_is_described_with_where_it_comes_from(server: Server, tmp_path: Path) -> None:
    said = "max_idle_time=70\nbatch_size=8\nmax_batch_delay=5\noption.predict_timeout=9\npinned=true\n"
    directory = write_coded(tmp_path / "layered", properties=said)
    parameters = {"url": str(directory), "batch_size": "4", "max_worker": "3", "initial_workers": "0"}
    assert server.management.post("/models", params=parameters).status_code == 200
    # The files are read when the model is loaded.
    assert server.describe("layered")["settingsFrom"]["maxIdleSeconds"] == "server"
    assert ask(server, "layered").status_code == 200
    assert scale(server, "layered", max_batch_delay=7, weight=2, min_worker=1).status_code == 200
    described = server.describe("layered")
    expected = {
        "minWorkers": (1, "scaling"),
        "maxWorkers": (3, "registration"),
        "batchSize": (4, "registration"),
        "maxBatchDelay": (7, "scaling"),
        "maxIdleSeconds": (70.0, "serving.properties"),
        "queueSize": (1000, "server"),
        "weight": (2.0, "scaling"),
        "pinned": (True, "serving.properties"),
        "maxMemoryMb": (None, "server"),
        "predictTimeout": (9.0, "serving.properties"),
        "requiredMemoryMb": (0, "server"),
        "modelLoadingTimeout": (240.0, "server"),
    }
    assert {name: (described[name], source) for name, source in described["settingsFrom"].items()} == expected


def test_a_model_with_code_says_that_its_batches_come_from_there(server: Server, store: Path) -> None:
    write_coded(store / "coded")
    assert ask(server, "coded").status_code == 200
    described = server.describe("coded")
    assert (described["batchSize"], described["settingsFrom"]["batchSize"]) == (1, "model code")


def test_what_the_server_is_told_holds_for_models_that_say_nothing(serve: Callable[..., Server], store: Path) -> None:
    write_coded(store / "coded")
    told = {"min_workers": 2, "max_workers": 3, "max_idle_time": 5, "max_memory_mb": 500, "predict_timeout": 7}
    other = serve(model_store=store, preload=LIGHT, **told)
    assert ask(other, "coded").status_code == 200
    wait_until(has_workers(other, "coded", 2), "as many workers as there are to be at least")
    described = other.describe("coded")
    names = ["minWorkers", "maxWorkers", "maxIdleSeconds", "maxMemoryMb", "predictTimeout"]
    assert [described[name] for name in names] == [2, 3, 5, 500, 7]
    assert {described["settingsFrom"][name] for name in names} == {"server"}


def test_a_model_that_waits_for_long_gets_its_workers_before_it_has_answered(
    server: Server, store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    gate.write_model(store / "long", "maxWorkers=4\n")
    names = [f"n{number}" for number in range(8)]
    asked = [threads.submit(ask, server, "long", name) for name in names]
    try:
        wait_until(lambda: sum(map(gate.holds, names)) == 4, "four workers at work", deadline=2)
    finally:
        gate.let(*names)
    assert [request.result().text for request in asked] == names
