"""Models are registered, described and unregistered over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
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
    """A server with an address for each API. Its store has `linear` (2x + 1)."""
    directory = tmp_path_factory.mktemp("store")
    models.write_archive(directory / "linear.tar.gz", models.linear())
    return serve_module(model_store=directory, preload="sklearn.linear_model", management_address="http://127.0.0.1:0/")


@pytest.fixture
def store(server: Server) -> Path:
    return Path(server.settings["model_store"])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A model that is not in the store: 4x."""
    return models.write_archive(tmp_path / "outside.tar.gz", models.linear(slope=4.0, intercept=0.0))


def register(server: Server, **parameters: Any) -> httpx.Response:
    return server.management.post("/models", params=parameters)


def unregister(server: Server, name: str) -> None:
    assert server.management.delete(f"/models/{name}").status_code == 200


def test_each_api_has_its_address(server: Server) -> None:
    assert server.url != server.management_url
    assert server.management.get("/ping").json() == {"status": "Healthy"}
    assert_error(server.client.get("/models"), 404, "ResourceNotFoundException", "GET /models")
    assert_error(server.management.post("/predictions/linear"), 404, "ResourceNotFoundException", "POST /predictions")


@pytest.mark.parametrize("spelling", ["{}", "file://{}"])
def test_an_archive_is_registered_by_its_path(server: Server, archive: Path, spelling: str) -> None:
    response = register(server, url=spelling.format(archive))
    assert (response.status_code, response.json()) == (200, {"status": 'Model "outside" registered.'})
    assert server.describe("outside")["status"] == "READY"
    assert server.predictions("outside", [[2.0]]) == [8.0]
    unregister(server, "outside")


def test_a_path_may_hold_what_a_url_has_to_escape(server: Server, tmp_path: Path) -> None:
    directory = models.write_model(tmp_path / "näme with 100% blanks", models.linear())
    url = f"file://{httpx.URL('file://' + str(directory).replace('%', '%25')).raw_path.decode()}"
    assert register(server, url=url, model_name="blanks").status_code == 200
    assert server.predictions("blanks", [[1.0]]) == [3.0]
    unregister(server, "blanks")
    assert_error(register(server, url=str(directory)), 400, "BadRequestException", "model name")


def test_a_path_is_relative_to_the_store(server: Server, store: Path) -> None:
    models.write_model(store / "shelf" / "inner", models.linear(slope=5.0))
    assert register(server, url="shelf/inner").status_code == 200
    assert server.predictions("inner", [[1.0]]) == [6.0]
    unregister(server, "inner")


def test_parameters_may_be_json(server: Server, archive: Path) -> None:
    body = {"url": str(archive), "model_name": "by-json", "initial_workers": 2, "batch_size": 4, "synchronous": True}
    assert server.management.post("/models", json=body).status_code == 200
    described = server.describe("by-json")
    assert (len(described["workers"]), described["minWorkers"], described["batchSize"]) == (2, 2, 4)
    assert server.predictions("by-json", [[1.0]]) == [4.0]
    unregister(server, "by-json")


def test_the_query_goes_before_the_body(server: Server, archive: Path) -> None:
    body = {"url": str(archive), "model_name": "from-body"}
    response = server.management.post("/models", params={"model_name": "from-query"}, json=body)
    assert response.status_code == 200
    assert server.describe("from-query")["modelUrl"] == str(archive)
    unregister(server, "from-query")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_parameter_that_nobody_knows_is_named_and_nothing_is_done(server: Server, archive: Path, method: str) -> None:
    path = "/models" if method == "POST" else "/models/linear"
    said = {"url": str(archive), "max_wrokers": "2"} if method == "POST" else {"max_wrokers": "2"}
    response = server.management.request(method, path, params=said)
    assert_error(response, 400, "BadRequestException", "max_wrokers")
    assert server.management.get("/models/outside").status_code == 404


def test_parameters_of_other_servers_that_mean_nothing_here_are_accepted(server: Server, archive: Path) -> None:
    assert register(server, url=str(archive), engine="Python", device="-1").status_code == 200
    unregister(server, "outside")


def test_registration_starts_the_workers_that_are_asked_for(server: Server, archive: Path) -> None:
    for parameter, number in [("initial_workers", 2), ("min_worker", 2), ("initial_workers", 0)]:
        assert register(server, url=str(archive), **{parameter: number}).status_code == 200
        described = server.describe("outside")
        assert len(described["workers"]) == number
        assert described["status"] == ("READY" if number else "SLEEPING")
        unregister(server, "outside")


def test_registration_may_be_left_to_itself(server: Server, archive: Path) -> None:
    response = register(server, url=str(archive), synchronous="false")
    assert (response.status_code, response.json()) == (202, {"status": 'Model "outside" registration scheduled.'})
    wait_until(lambda: server.describe("outside")["status"] == "READY", "the model to be loaded, without a request")
    unregister(server, "outside")


def test_what_fails_to_load_by_itself_can_be_looked_at(server: Server, tmp_path: Path) -> None:
    models.write_model(tmp_path / "unhappy", files={"model.py": "raise OSError('no way')"})
    assert register(server, url=str(tmp_path / "unhappy"), synchronous="false").status_code == 202
    wait_until(lambda: server.describe("unhappy")["status"] == "FAILED", "the model to fail")
    assert "no way" in server.describe("unhappy")["failure"]["message"]
    unregister(server, "unhappy")


def test_a_model_is_registered_once(server: Server, archive: Path) -> None:
    assert register(server, url=str(archive)).status_code == 200
    assert_error(register(server, url=str(archive)), 409, "ConflictStatusException", "outside")
    assert server.predictions("outside", [[1.0]]) == [4.0]
    unregister(server, "outside")


def test_of_many_who_register_at_once_one_succeeds(server: Server, archive: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: register(server, url=str(archive)).status_code, range(8)))
    assert sorted(answers) == [200] + [409] * 7
    unregister(server, "outside")


@pytest.mark.parametrize("url", ["none.tar.gz", "/none/such", "file:///none", "a" * 5000])
def test_what_is_not_there_is_named(server: Server, url: str) -> None:
    response = server.management.post("/models", json={"url": url, "model_name": "none"})
    assert_error(response, 404, "ModelNotFoundException", url)


@pytest.mark.parametrize("url", ["http://host/model.tar.gz", "s3://bucket/model.tar.gz"])
def test_a_url_that_no_model_can_come_from_is_refused(server: Server, url: str) -> None:
    assert_error(server.management.post("/models", json={"url": url}), 400, "BadRequestException", url)


def test_a_file_that_is_no_archive_is_not_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"")
    assert_error(register(server, url=str(tmp_path / "model.joblib")), 404, "ModelNotFoundException")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "url"),
        ({"url": ""}, "url"),
        ({"model_name": "a/b"}, "a/b"),
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


def test_a_model_that_does_not_load_is_not_registered(server: Server, tmp_path: Path) -> None:
    directory = models.write_model(tmp_path / "hopeless", files={"model.py": "import no_such_module"})
    response = register(server, url=str(directory))
    assert_error(response, 424, "ModuleNotFoundError", "no_such_module")
    assert_error(server.management.get("/models/hopeless"), 404, "ModelNotFoundException")
    assert_error(server.predict("hopeless", [[1.0]]), 404, "ModelNotFoundException")
    assert "hopeless" not in {model["modelName"] for model in server.management.get("/models").json()["models"]}
    (directory / "model.py").write_text("def handle(inputs): pass")
    assert register(server, url=str(directory)).status_code == 200
    unregister(server, "hopeless")


def test_a_model_of_the_store_survives_a_registration_that_failed(server: Server, store: Path) -> None:
    models.write_model(store / "mended", files={"model.py": "raise OSError('not yet')"})
    assert_error(register(server, url="mended"), 424, "OSError", "not yet")
    models.write_model(store / "mended", files={"model.py": "def handle(inputs): pass"})
    assert server.predict("mended", [[1.0]]).status_code == 204


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
        "predictTimeout": 60.0,
        "modelLoadingTimeout": 240.0,
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
            "predictTimeout": "server",
            "modelLoadingTimeout": "server",
        },
        "requestInQueue": 0,
        "loadedAtStartup": False,
    }
    assert len({worker["id"] for worker in workers}) == 2
    assert sum(worker["served"] for worker in workers) == 5
    for worker in workers:
        assert worker["status"] == "READY"
        assert Path(f"/proc/{worker['pid']}/cmdline").read_bytes().rstrip(b"\0") == b"mmserve: worker outside"
        assert 1 << 20 < worker["memoryUsage"] < 1 << 30
        assert datetime.fromisoformat(worker["startTime"]).tzinfo is not None
    unregister(server, "outside")


def test_a_model_that_nobody_has_asked_for_is_asleep(server: Server, store: Path) -> None:
    models.write_archive(store / "untouched.tgz", models.linear())
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
