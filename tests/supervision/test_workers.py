"""Workers that die: by a signal, while they load, while the front or the template dies; nothing is lost or left."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

# Exits, hangs or dies as the request says.
_DANGEROUS = """
import os, signal, time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    asked = inputs.get_as_string()
    if asked == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if asked == "exit":
        os._exit(3)
    if asked.startswith("wait "):
        path = asked.removeprefix("wait ")
        while not os.path.exists(path):
            time.sleep(0.005)
    return Output().add_as_json({"pid": os.getpid()})
"""


@pytest.fixture
def dangerous(serve: Callable[..., Server], store: Path) -> Server:
    models.write_model(store / "dangerous", files={"model.py": _DANGEROUS})
    models.write_archive(store / "linear.tar.gz", models.linear())
    return serve(model_store=store)


def ask(server: Server, what: str) -> httpx.Response:
    return server.client.post("/predictions/dangerous", content=what, headers={"content-type": "text/plain"})


def test_a_killed_idle_worker_is_replaced_for_the_next_request(serve: Callable[..., Server], store: Path) -> None:
    models.write_archive(store / "linear.tar.gz", models.linear())
    server = serve(model_store=store)
    assert server.predictions("linear", [[1.0]]) == [3.0]
    (before,) = server.worker_pids("linear")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: server.worker_pids("linear") != [before], "the end of the worker to be noticed")
    assert server.predictions("linear", [[1.0]]) == [3.0]


def test_a_request_that_kills_two_workers_is_answered_with_the_signal(dangerous: Server) -> None:
    response = ask(dangerous, "die")
    assert response.status_code == 424
    assert response.json()["type"] == "WorkerDiedException"
    assert "SIGSEGV" in response.json()["message"]
    assert ask(dangerous, "hello").status_code == 200
    assert dangerous.client.get("/ping").status_code == 200


def test_a_request_that_exits_its_worker_is_answered_with_the_exit_code(dangerous: Server) -> None:
    response = ask(dangerous, "exit")
    assert response.status_code == 424
    assert "exit code 3" in response.json()["message"]


def test_what_a_killed_worker_held_is_answered_by_another(dangerous: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    assert ask(dangerous, "hello").status_code == 200
    (first,) = dangerous.worker_pids("dangerous")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, dangerous, f"wait {gate}")
        wait_until(lambda: dangerous.describe("dangerous")["workers"][0]["status"] == "BUSY", "a busy worker")
        os.kill(first, signal.SIGKILL)
        wait_until(
            lambda: [
                worker
                for worker in dangerous.describe("dangerous")["workers"]
                if worker["status"] == "BUSY" and worker["pid"] != first
            ],
            "the request on another worker",
        )
        gate.touch()
        assert waiting.result().json()["pid"] != first


def test_a_crash_hurts_no_other_model(dangerous: Server) -> None:
    assert dangerous.predictions("linear", [[1.0]]) == [3.0]
    before = dangerous.worker_pids("linear")
    assert ask(dangerous, "die").status_code == 424
    assert dangerous.predictions("linear", [[1.0]]) == [3.0]
    assert dangerous.worker_pids("linear") == before


def test_a_model_that_kills_its_worker_while_loading_is_answered_so(serve: Callable[..., Server], store: Path) -> None:
    models.write_model(store / "deadly", files={"model.py": "import os\nos.kill(os.getpid(), 11)\n"})
    server = serve(model_store=store, preload=LIGHT)
    response = server.predict("deadly", [[1.0]])
    assert response.status_code == 424
    assert "SIGSEGV" in response.json()["message"]
    assert server.describe("deadly")["status"] == "FAILED"


def test_processes_started_by_a_model_end_with_its_worker(serve: Callable[..., Server], store: Path) -> None:
    code = """
import subprocess
from djl_python import Output
child = subprocess.Popen(["sleep", "1000"])

def handle(inputs):
    return None if inputs.is_empty() else Output().add_as_json(child.pid)
"""
    models.write_model(store / "parent", files={"model.py": code})
    server = serve(model_store=store, preload=LIGHT)
    child = psutil.Process(server.predict("parent", []).json())
    os.kill(server.worker_pids("parent")[0], signal.SIGKILL)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the end of the child")


def test_killing_workers_at_random_loses_no_request(serve: Callable[..., Server], store: Path) -> None:
    for number in range(3):
        models.write_archive(store / f"model-{number}.tar.gz", models.linear(slope=number))
    server = serve(model_store=store)
    for number in range(3):
        assert server.management.put(f"/models/model-{number}", params={"min_worker": 2}).status_code == 200
    descriptors = server.descriptors()
    stop = threading.Event()
    answered = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
            while not stop.is_set():
                number, value = chance.randrange(3), chance.randrange(100)
                response = http.post(f"/predictions/model-{number}", json=[[value]])
                assert response.status_code == 200, response.text
                assert response.json()["predictions"] == [number * value + 1.0]
                answered.append(number)

    chance = random.Random(1)
    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(client, seed) for seed in range(8)]
        killed = 0
        while killed < 25:
            running = [pid for number in range(3) for pid in server.worker_pids(f"model-{number}")]
            if running:
                try:
                    os.kill(chance.choice(running), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed += 1
                enough = len(answered) + 20
                while len(answered) < enough and not any(done.done() for done in clients):
                    time.sleep(0.002)
        stop.set()
        for done in clients:
            done.result()
    wait_until(lambda: all(len(server.worker_pids(f"model-{number}")) == 2 for number in range(3)), "all workers back")
    wait_until(lambda: server.descriptors() <= descriptors + 1, "no descriptor left open")


def test_the_template_is_replaced_when_it_dies_and_running_workers_go_on(
    serve: Callable[..., Server], store: Path
) -> None:
    for name in ("one", "two"):
        models.write_archive(store / f"{name}.tar.gz", models.linear())
    server = serve(model_store=store)
    assert server.predictions("one", [[1.0]]) == [3.0]
    before = server.worker_pids("one")
    template = server.template_pid()
    os.kill(template, signal.SIGKILL)
    assert server.predictions("one", [[1.0]]) == [3.0]
    assert server.worker_pids("one") == before
    assert server.predictions("two", [[1.0]]) == [3.0]
    assert server.template_pid() != template
    (died,) = [event for event in server.management.get("/events").json()["events"] if event["kind"] == "template_died"]
    assert died["pid"] == template


def test_a_template_killed_again_and_again_delays_starts_and_loses_none(
    serve: Callable[..., Server], store: Path
) -> None:
    for number in range(6):
        models.write_archive(store / f"model-{number}.tar.gz", models.linear())
    server = serve(model_store=store)
    with ThreadPoolExecutor(6) as threads:
        for round_ in range(2):
            template = server.template_pid()
            asked = [
                threads.submit(server.predictions, f"model-{number}", [[1.0]])
                for number in range(round_ * 3, round_ * 3 + 3)
            ]
            os.kill(template, signal.SIGKILL)
            assert [done.result() for done in asked] == [[3.0]] * 3


def test_nothing_outlives_a_killed_front(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    models.write_model(store / "dangerous", files={"model.py": _DANGEROUS})
    models.write_archive(store / "linear.tar.gz", models.linear())
    server = serve(model_store=store)
    assert server.predictions("linear", [[1.0]]) == [3.0]
    with ThreadPoolExecutor(1) as threads:
        stuck = threads.submit(ask, server, f"wait {tmp_path / 'never'}")
        wait_until(lambda: server.describe("dangerous")["workers"], "a worker")
        wait_until(lambda: server.describe("dangerous")["workers"][0]["status"] == "BUSY", "a busy worker")
        assert len(server.processes()) >= 4
        killed_at = time.monotonic()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not server.processes(), "the end of all its processes", deadline=1.0)
        assert time.monotonic() - killed_at < 1.0
        assert isinstance(stuck.exception(), httpx.TransportError)


def test_workers_ignore_the_signals_that_stop_the_front(serve: Callable[..., Server], store: Path) -> None:
    """systemd sends SIGTERM, and a terminal SIGINT, to all processes at once."""
    models.write_archive(store / "linear.tar.gz", models.linear())
    server = serve(model_store=store)
    assert server.predictions("linear", [[1.0]]) == [3.0]
    before = server.worker_pids("linear")
    for pid in (*before, server.template_pid()):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert server.predictions("linear", [[1.0]]) == [3.0]
    assert server.worker_pids("linear") == before


def test_children_of_one_template_draw_different_numbers(serve: Callable[..., Server], store: Path) -> None:
    code = """
import random
import numpy as np
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add_as_json([np.random.random(), random.random()])
"""
    for name in ("one", "two"):
        models.write_model(store / name, files={"model.py": code})
    server = serve(model_store=store, preload=LIGHT)
    one, two = (server.predict(name, []).json() for name in ("one", "two"))
    assert one[0] != two[0]
    assert one[1] != two[1]


def test_workers_run_at_lower_priority_and_are_preferred_by_the_oom_killer(
    serve: Callable[..., Server], store: Path
) -> None:
    models.write_archive(store / "linear.tar.gz", models.linear())
    server = serve(model_store=store, worker_nice=7)
    assert server.predictions("linear", [[1.0]]) == [3.0]
    (pid,) = server.worker_pids("linear")
    front = server.process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, front) + 7
    score = {each: int(Path(f"/proc/{each}/oom_score_adj").read_text()) for each in (pid, front)}
    assert score[pid] > score[front]


def test_a_worker_holds_no_descriptor_but_its_own(serve: Callable[..., Server], store: Path) -> None:
    for name in ("one", "two"):
        models.write_archive(store / f"{name}.tar.gz", models.linear())
    server = serve(model_store=store)
    for name in ("one", "two"):
        assert server.predictions(name, [[1.0]]) == [3.0]
    (pid,) = server.worker_pids("two")
    held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
    assert not [to for to in held if "socket" in to]
    assert sum("memfd:mmserve-channel" in to for to in held) <= 2
    assert sum("eventfd" in to for to in held) == 2
