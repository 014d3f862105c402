"""Models are registered over HTTP: from where, with what, and what becomes of what does not load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.registered import register, unregister
from tests.servers import Server, wait_until


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


def test_a_path_is_relative_to_the_store(server: Server, server_store: Path) -> None:
    models.write_model(server_store / "shelf" / "inner", models.linear(slope=5.0))
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


@pytest.mark.parametrize("url", ["http://host/model.tar.gz", "hdfs://host/model.tar.gz"])
def test_a_url_that_no_model_can_come_from_is_refused(server: Server, url: str) -> None:
    assert_error(server.management.post("/models", json={"url": url}), 400, "BadRequestException", url)


def test_a_file_that_is_no_archive_is_not_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(b"")
    assert_error(register(server, url=str(tmp_path / "model.joblib")), 404, "ModelNotFoundException")


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


def test_a_model_of_the_store_survives_a_registration_that_failed(server: Server, server_store: Path) -> None:
    models.write_model(server_store / "mended", files={"model.py": "raise OSError('not yet')"})
    assert_error(register(server, url="mended"), 424, "OSError", "not yet")
    models.write_model(server_store / "mended", files={"model.py": "def handle(inputs): pass"})
    assert server.predict("mended", [[1.0]]).status_code == 204
