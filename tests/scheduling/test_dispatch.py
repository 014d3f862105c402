"""Which request goes where, seen from outside: batches, delays, several workers, several frames of answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

# Says how many requests came together, after waiting for a file where it is asked to.
_COUNTING = """
import os, time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    batch = inputs.get_batches()
    for each in batch:
        path = each.get_as_string()
        while path != "-" and not os.path.exists(path):
            time.sleep(0.002)
    output = Output()
    for index, _ in enumerate(batch):
        if inputs.is_batch():
            output.add_as_json({"together": len(batch), "pid": os.getpid()}, batch_index=index)
        else:
            output.add_as_json({"together": len(batch), "pid": os.getpid()})
    return output
"""


def counting(store: Path, properties: str) -> None:
    models.write_model(store / "counting", files={"model.py": _COUNTING, "serving.properties": properties})


def ask(server: Server, gate: Path | None = None) -> Any:
    response = server.client.post(
        "/predictions/counting", content=str(gate or "-"), headers={"content-type": "text/plain"}
    )
    assert response.status_code == 200, response.text
    return response.json()


def waiting(server: Server) -> int:
    return int(server.describe("counting")["requestInQueue"])


def test_a_free_worker_takes_what_is_waiting_up_to_the_batch_size(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    counting(store, "batch_size=4\n")
    server = serve(model_store=store, preload=LIGHT)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(ask, server, gate)
        wait_until(
            lambda: [w for w in server.describe("counting")["workers"] if w["status"] == "BUSY"], "a busy worker"
        )
        others = [threads.submit(ask, server) for _ in range(6)]
        wait_until(lambda: waiting(server) == 6, "all others in the queue")
        gate.touch()
        assert first.result()["together"] == 1
        assert sorted(other.result()["together"] for other in others) == [2, 2, 4, 4, 4, 4]


def test_a_lone_request_is_not_delayed_for_a_batch(serve: Callable[..., Server], store: Path) -> None:
    counting(store, "batch_size=8\n")
    server = serve(model_store=store, preload=LIGHT, max_batch_delay=0)
    ask(server)
    took = []
    for _ in range(10):
        before = time.monotonic()
        ask(server)
        took.append(time.monotonic() - before)
    # Any waiting for others would be in all of them; a busy host is not.
    assert min(took) < 0.05


def test_a_batch_is_waited_for_only_as_long_as_asked(serve: Callable[..., Server], store: Path) -> None:
    counting(store, "batch_size=3\nmax_batch_delay=400\n")
    server = serve(model_store=store, preload=LIGHT)
    ask(server)
    before = time.monotonic()
    assert ask(server)["together"] == 1
    assert time.monotonic() - before >= 0.4
    with ThreadPoolExecutor(3) as threads:
        before = time.monotonic()
        assert [done.result()["together"] for done in [threads.submit(ask, server) for _ in range(3)]] == [3, 3, 3]


def test_a_batch_is_waited_for_while_there_is_time_to_answer(serve: Callable[..., Server], store: Path) -> None:
    counting(store, "batch_size=3\nmax_batch_delay=60000\n")
    server = serve(model_store=store, preload=LIGHT, request_timeout=8.0)
    before = time.monotonic()
    assert ask(server)["together"] == 1
    assert time.monotonic() - before >= 4.0


def test_several_workers_answer_side_by_side(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    counting(store, "minWorkers=3\nmaxWorkers=3\n")
    server = serve(model_store=store, preload=LIGHT)
    ask(server)
    wait_until(lambda: len(server.worker_pids("counting")) == 3, "three workers")
    wait_until(
        lambda: all(worker["status"] == "READY" for worker in server.describe("counting")["workers"]), "ready workers"
    )
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask, server, gate) for _ in range(3)]
        wait_until(
            lambda: all(worker["status"] == "BUSY" for worker in server.describe("counting")["workers"]), "all busy"
        )
        gate.touch()
        assert len({done.result()["pid"] for done in asked}) == 3


def test_light_traffic_stays_on_the_most_recently_used_worker(serve: Callable[..., Server], store: Path) -> None:
    counting(store, "minWorkers=3\nmaxWorkers=3\n")
    server = serve(model_store=store, preload=LIGHT)
    ask(server)
    wait_until(
        lambda: [worker["status"] for worker in server.describe("counting")["workers"]] == ["READY"] * 3, "3 workers"
    )
    assert len({ask(server)["pid"] for _ in range(10)}) == 1


def test_scaling_to_zero_with_requests_waiting_answers_them(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    counting(store, "batch_size=1\nmaxWorkers=1\n")
    server = serve(model_store=store, preload=LIGHT)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask, server, gate) for _ in range(3)]
        wait_until(lambda: waiting(server) == 2, "two in the queue")
        scaled = server.management.put("/models/counting", params={"min_worker": 0, "synchronous": "false"})
        assert scaled.status_code == 202
        gate.touch()
        assert all(done.result()["together"] == 1 for done in asked)
    wait_until(lambda: server.describe("counting")["requestInQueue"] == 0, "an empty queue")


@pytest.mark.parametrize("count", [1, 12])
def test_large_answers_of_a_batch_come_in_several_frames(
    serve: Callable[..., Server], store: Path, tmp_path: Path, count: int
) -> None:
    """Twelve answers of 600 kB do not fit a channel made for 1 MB; each caller gets its own all the same."""
    models.write_model(store / "identity", models.identity())
    server = serve(model_store=store, max_request_size=1_000_000, batch_size=32)
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}

    def echo(number: int) -> None:
        rows = np.full((75_000, 1), float(number))
        file = tmp_path / f"{number}.npy"
        np.save(file, rows)
        response = server.client.post("/predictions/identity", content=file.read_bytes(), headers=headers)
        assert response.status_code == 200, response.text
        file.write_bytes(response.content)
        np.testing.assert_array_equal(np.load(file), rows)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(echo, range(count)))


def test_memory_of_large_payloads_is_given_back(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    models.write_model(store / "identity", models.identity())
    server = serve(model_store=store)
    file = tmp_path / "large.npy"
    np.save(file, np.zeros((4 * 1024 * 1024, 1)))
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}

    def shared() -> int:
        (pid,) = server.worker_pids("identity")
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        return int(rollup[rollup.index("Pss_Shmem:") + 1]) * 1024

    response = server.client.post("/predictions/identity", content=file.read_bytes(), headers=headers)
    assert response.status_code == 200
    assert response.content == file.read_bytes()
    wait_until(lambda: shared() < 2 * 1024 * 1024, "the memory of the payload given back")
