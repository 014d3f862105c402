"""Models are described and unregistered over HTTP, with clear answers to what cannot be meant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.http.registered import register, unregister
from tests.servers import Server, wait_until


def test_each_api_has_its_address(server: Server) -> None:
    assert server.url != server.management_url
    assert server.management.get("/ping").json() == {"status": "Healthy"}
    assert_error(server.client.get("/models"), 404, "ResourceNotFoundException", "GET /models")
    assert_error(server.management.post("/predictions/linear"), 404, "ResourceNotFoundException", "POST /predictions")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "url"),
        ({"url": ""}, "url"),
        ({"model_name": "a//b"}, "a//b"),
        ({"model_name": "a" * 201}, "name"),
        ({"model_name": "../up"}, "../up"),
        ({"initial_workers": "some"}, "initial_workers"),
        ({"min_worker": "-2"}, "min_worker"),
        ({"min_worker": "3", "max_worker": "2"}, "min_worker"),
        ({"max_worker": "0"}, "max_worker"),
        ({"batch_size": "0"}, "batch_size"),
        ({"batch_size": "1e3"}, "batch_size"),
        ({"batch_size": "9" * 5000}, "batch_size"),
        ({"max_batch_delay": "nan"}, "max_batch_delay"),
        ({"job_queue_size": "0"}, "job_queue_size"),
        ({"synchronous": "perhaps"}, "synchronous"),
    ],
)
def test_a_bad_parameter_is_named(server: Server, archive: Path, parameters: dict[str, str], said: str) -> None:
    if said != "url":
        parameters = {"url": str(archive), **parameters}
    assert_error(register(server, **parameters), 400, "BadRequestException", said)
    assert_error(server.management.post("/models", json=parameters), 400, "BadRequestException", said)
    assert_error(server.management.get("/models/outside"), 404, "ModelNotFoundException")


@pytest.mark.parametrize("body", [b"url=linear", b"[]", b'"linear"', b'{"url": ["linear"]}', b'{"url": "\xff"}', b"{"])
def test_a_body_that_holds_no_parameters_is_refused(server: Server, body: bytes) -> None:
    assert_error(server.management.post("/models", content=body), 400, "BadRequestException", "JSON object")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/models", "GET, POST"),
        ("POST", "/models/linear", "GET, PUT, DELETE"),
        ("POST", "/status", "GET"),
        ("DELETE", "/ping", "GET"),
    ],
)
def test_a_method_that_is_not_possible_is_told_which_are(server: Server, method: str, path: str, allowed: str) -> None:
    response = server.management.request(method, path)
    assert_error(response, 405, "MethodNotAllowedException", method, path)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/models/", "/models/linear/workers", "/none", "/models/linear/invoke"])
def test_an_unknown_route_is_named(server: Server, path: str) -> None:
    assert_error(server.management.get(path), 404, "ResourceNotFoundException", path)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_model_is_named(server: Server, method: str) -> None:
    assert_error(server.management.request(method, "/models/none"), 404, "ModelNotFoundException", "none")


def test_what_is_described(server: Server, archive: Path) -> None:
    parameters = {"batch_size": 7, "max_batch_delay": 3, "max_idle_time": 90, "job_queue_size": 11, "max_worker": 5}
    assert register(server, url=str(archive), min_worker=2, **parameters).status_code == 200
    for number in range(5):
        server.predictions("outside", [[float(number)]])
    described = server.describe("outside")
    workers = described.pop("workers")
    assert described == {
        "modelName": "outside",
        "modelUrl": str(archive),
        "status": "READY",
        "minWorkers": 2,
        "maxWorkers": 5,
        "batchSize": 7,
        "maxBatchDelay": 3,
        "maxIdleSeconds": 90.0,
        "queueSize": 11,
        "weight": 1.0,
        "pinned": False,
        "maxMemoryMb": None,
        "requiredMemoryMb": 0.0,
        "predictTimeout": 60.0,
        "modelLoadingTimeout": 240.0,
        "handler": None,
        "settingsFrom": {
            "minWorkers": "registration",
            "maxWorkers": "registration",
            "batchSize": "registration",
            "maxBatchDelay": "registration",
            "maxIdleSeconds": "registration",
            "queueSize": "registration",
            "weight": "server",
            "pinned": "server",
            "maxMemoryMb": "server",
            "requiredMemoryMb": "server",
            "predictTimeout": "server",
            "modelLoadingTimeout": "server",
        },
        "requestInQueue": 0,
        "loadedAtStartup": False,
        "environment": None,
    }
    assert len({worker["id"] for worker in workers}) == 2
    assert sum(worker["served"] for worker in workers) == 5
    for worker in workers:
        assert worker["status"] == "READY"
        assert Path(f"/proc/{worker['pid']}/cmdline").read_bytes().rstrip(b"\0") == b"mmserve: worker outside"
        assert 1 << 20 < worker["memoryUsage"] < 1 << 30
        assert datetime.fromisoformat(worker["startTime"]).tzinfo is not None
    unregister(server, "outside")


def test_a_model_that_nobody_has_asked_for_is_asleep(server: Server, server_store: Path) -> None:
    models.write_archive(server_store / "untouched.tgz", models.linear())
    described = server.describe("untouched")
    assert (described["status"], described["workers"]) == ("SLEEPING", [])


def test_an_unregistered_model_stays_away_until_it_is_registered_again(server: Server) -> None:
    assert server.predictions("linear", [[1.0]]) == [3.0]
    pids = server.worker_pids("linear")
    response = server.management.delete("/models/linear")
    assert (response.status_code, response.json()) == (200, {"status": 'Model "linear" unregistered'})
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert_error(server.predict("linear", [[1.0]]), 404, "ModelNotFoundException")
    assert_error(server.management.get("/models/linear"), 404, "ModelNotFoundException")
    assert_error(server.management.delete("/models/linear"), 404, "ModelNotFoundException")
    assert "linear" not in {model["modelName"] for model in server.management.get("/models").json()["models"]}
    assert register(server, url="linear.tar.gz").status_code == 200
    assert server.predictions("linear", [[1.0]]) == [3.0]


def test_what_was_accepted_is_answered_before_a_model_goes(server: Server, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    assert register(server, url=str(gate.write_model(tmp_path / "leaving"))).status_code == 200
    with ThreadPoolExecutor(3) as threads:
        running, waiting = (
            threads.submit(server.client.post, "/predictions/leaving", content=name) for name in ("running", "waiting")
        )
        wait_until(lambda: server.describe("leaving")["requestInQueue"] == 1, "one request to wait for the other")
        leaving = threads.submit(server.management.delete, "/models/leaving")
        wait_until(lambda: server.management.get("/models/leaving").status_code == 404, "the model to be gone")
        assert_error(server.client.post("/predictions/leaving", content="late"), 404, "ModelNotFoundException")
        assert not leaving.done()
        gate.let("running", "waiting")
        assert (running.result().text, waiting.result().text) == ("running", "waiting")
        assert leaving.result().status_code == 200
