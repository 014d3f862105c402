"""A model's workers and settings are changed while it is served, and what was said last holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.servers import Server, wait_until


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(
        model_store=tmp_path_factory.mktemp("store"), preload="sklearn.linear_model", batch_size=16, max_batch_delay=2
    )


def has_workers(server: Server, model: str, number: int) -> bool:
    return len(server.worker_pids(model)) == number


def scale(server: Server, model: str, **parameters: Any) -> httpx.Response:
    return server.management.put(f"/models/{model}", params=parameters)


def test_workers_are_added_and_taken_away(server: Server, server_store: Path) -> None:
    models.write_model(server_store / "scaled", models.linear())
    response = scale(server, "scaled", min_worker=3, max_worker=4)
    assert (response.status_code, response.json()) == (200, {"status": "Workers scaled"})
    pids = server.worker_pids("scaled")
    assert len(set(pids)) == 3
    assert server.predictions("scaled", [[1.0]]) == [3.0]

    assert scale(server, "scaled", min_worker=1).status_code == 200
    (left,) = server.worker_pids("scaled")
    assert left in pids
    assert [pid for pid in pids if psutil.pid_exists(pid)] == [left]

    assert scale(server, "scaled", min_worker=0).status_code == 200
    assert server.worker_pids("scaled") == []
    assert not psutil.pid_exists(left)
    assert server.describe("scaled")["status"] == "SLEEPING"
    assert server.predictions("scaled", [[1.0]]) == [3.0]


def test_workers_work_side_by_side(server: Server, server_store: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.write_model(server_store / "parallel")
    assert scale(server, "parallel", min_worker=3).status_code == 200
    with ThreadPoolExecutor(3) as threads:
        names = ["a", "b", "c"]
        asked = [threads.submit(server.client.post, "/predictions/parallel", content=name) for name in names]
        for name in names:
            gate.wait_for(name)
        gate.let(*names)
        assert [request.result().text for request in asked] == names
    assert sorted(worker["served"] for worker in server.describe("parallel")["workers"]) == [1, 1, 1]
    assert scale(server, "parallel", min_worker=0).status_code == 200


def test_scaling_may_be_left_to_itself(server: Server, server_store: Path) -> None:
    models.write_model(server_store / "later", models.linear())
    for number in (2, 0):
        response = scale(server, "later", min_worker=number, synchronous="false")
        assert (response.status_code, response.json()) == (202, {"status": "Processing worker updates..."})
        wait_until(partial(has_workers, server, "later", number), f"{number} workers")


def test_a_busy_worker_that_is_too_many_finishes_first(server: Server, server_store: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.write_model(server_store / "busy")
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(server.client.post, "/predictions/busy", content="running")
        gate.wait_for("running")
        waiting = threads.submit(server.client.post, "/predictions/busy", content="waiting")
        wait_until(lambda: server.describe("busy")["requestInQueue"] == 1, "one request to wait for the other")
        assert scale(server, "busy", min_worker=0, synchronous="false").status_code == 202
        gate.let("running", "waiting")
        assert (running.result().text, waiting.result().text) == ("running", "waiting")


def test_a_model_that_goes_away_is_not_waited_for(server: Server, server_store: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    code = f"import os, time\nwhile not os.path.exists({str(opened)!r}): time.sleep(0.002)\ndef handle(inputs): pass\n"
    models.write_model(server_store / "going", files={"model.py": code})
    with ThreadPoolExecutor(2) as threads:
        scaling = threads.submit(scale, server, "going", min_worker=2)
        wait_until(lambda: len(server.worker_pids("going")) == 2, "two workers that load")
        going = threads.submit(server.management.delete, "/models/going")
        wait_until(lambda: server.management.get("/models/going").status_code == 404, "the model to be gone")
        opened.touch()
        assert going.result().status_code == 200
        assert scaling.result().status_code in (200, 409)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"min_worker": "many"}, "min_worker"),
        ({"min_worker": 2, "max_worker": 1}, "min_worker"),
        ({"max_worker": 0}, "max_worker"),
        ({"synchronous": 1}, "synchronous"),
    ],
)
def test_a_bad_parameter_changes_nothing(
    server: Server, server_store: Path, parameters: dict[str, Any], said: str
) -> None:
    models.write_model(server_store / "steady", models.linear())
    before = server.describe("steady")
    assert_error(scale(server, "steady", **parameters), 400, "BadRequestException", said)
    assert server.describe("steady") == before


def test_scaling_a_model_that_does_not_load_says_why(server: Server, server_store: Path) -> None:
    models.write_model(server_store / "unloadable", files={"model.py": "raise KeyError('shelf')"})
    assert_error(scale(server, "unloadable", min_worker=2), 424, "KeyError", "shelf")
    # It is tried again every now and then.
    wait_until(lambda: server.describe("unloadable")["status"] == "FAILED", "the end of the workers")


def settings_of(server: Server, model: str) -> tuple[Any, ...]:
    described = server.describe(model)
    return tuple(
        described[key]
        for key in ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "maxIdleSeconds", "queueSize")
    )


def test_what_is_said_nearest_holds(server: Server, tmp_path: Path) -> None:
    """The server's settings < serving.properties < registration < PUT, setting by setting."""
    said = "minWorkers=1\nmaxWorkers=3\nbatch_size=8\nmax_batch_delay=5\nmax_idle_time=70\n"
    directory = models.write_model(tmp_path / "layers", models.linear(), {"serving.properties": said})
    registration = {"url": str(directory), "batch_size": "4", "max_batch_delay": "6"}
    assert server.management.post("/models", params=registration).status_code == 200
    assert settings_of(server, "layers") == (1, 3, 4, 6, 70.0, 1000)
    assert scale(server, "layers", max_batch_delay=7, job_queue_size=9).status_code == 200
    assert settings_of(server, "layers") == (1, 3, 4, 7, 70.0, 9)
    assert scale(server, "layers", min_worker=2, batch_size=1).status_code == 200
    assert settings_of(server, "layers") == (2, 3, 1, 7, 70.0, 9)
    assert len(server.worker_pids("layers")) == 2
    # Asked for more than the file allows: who asks last is right.
    assert scale(server, "layers", min_worker=4).status_code == 200
    assert settings_of(server, "layers")[:2] == (4, 4)
    assert server.management.delete("/models/layers").status_code == 200
    # What was asked is gone with the model, what its file says is not.
    assert server.management.post("/models", params={"url": str(directory)}).status_code == 200
    assert settings_of(server, "layers") == (1, 3, 8, 5, 70.0, 1000)
    assert server.management.delete("/models/layers").status_code == 200


def test_batches_are_for_models_without_code_unless_it_asks(server: Server, server_store: Path) -> None:
    code = "def handle(inputs): pass"
    models.write_model(server_store / "plain", models.linear())
    models.write_model(server_store / "coded", files={"model.py": code})
    models.write_model(server_store / "batched", files={"model.py": code, "serving.properties": "batch_size=5\n"})
    for model, batch_size in [("plain", 16), ("coded", 1), ("batched", 5)]:
        assert server.predict(model, [[1.0]]).status_code in (200, 204)
        assert server.describe(model)["batchSize"] == batch_size


def test_an_unknown_key_is_warned_about_and_not_fatal(server: Server, server_store: Path) -> None:
    said = "batchSize=3\noption.mine=1\nmax_idle_tiem=5\n"
    models.write_model(server_store / "misspelt", models.linear(), {"serving.properties": said})
    assert server.predictions("misspelt", [[1.0]]) == [3.0]
    log = server.log.read_text()
    for key in ("batchSize", "max_idle_tiem"):
        (line,) = [line for line in log.splitlines() if key in line]
        assert "WARNING" in line
        assert "misspelt" in line
    assert "option.mine" not in log
