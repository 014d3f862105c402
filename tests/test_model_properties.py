"""What serving.properties and the variables of DJL Serving do to models that are served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

SHOW = """
import os
from djl_python import Output
AT_IMPORT = os.environ.get("GREETING")

def handle(inputs):
    if inputs.is_empty():
        global OPTION
        OPTION = inputs.get_property("colour")
        return None
    threads = os.environ.get("OMP_NUM_THREADS")
    return Output().add_as_json([AT_IMPORT, OPTION, threads])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Server:
    store = tmp_path_factory.mktemp("properties") / "store"
    for name, said in {
        "plain": "",
        "own": "option.env=GREETING=hello, OMP_NUM_THREADS=3\noption.colour=blue\n",
        "refused": "engine=PyTorch\n",
        "harmless": "retry_threshold=2\n",
        "eager": "retry_threshold=1\n",
        "lazy": "minWorkers=0\n",
    }.items():
        models.write_model(store / name, None, {"model.py": SHOW, "serving.properties": said})
    environment = {
        "OPTION_COLOUR": "red",
        "ARGS_MAX_WORKERS": "1",
        "SERVING_LOAD_MODELS": "eager,lazy,missing",
        "SERVING_USE_NATIVE_IO": "false",
        "OMP_NUM_THREADS": "2",
    }
    serve_module: Callable[..., Server] = request.getfixturevalue("serve_module")
    return serve_module(environment=environment, model_store=store, preload=LIGHT)


def test_variables_of_the_environment_are_properties_of_all_models(server: Server) -> None:
    assert server.predict("plain", []).json() == [None, "red", "2"]
    assert server.describe("plain")["maxWorkers"] == 1


def test_a_model_says_its_own_variables_and_options(server: Server) -> None:
    assert server.predict("own", []).json() == ["hello", "blue", "3"]


def test_a_refused_key_is_the_models_load_error(server: Server) -> None:
    answer = server.predict("refused", [])
    assert (answer.status_code, answer.json()["type"]) == (424, "RefusedKey")
    assert "engine=PyTorch is refused: there is no such engine" in answer.json()["message"]


def test_what_has_no_effect_is_said_once(server: Server) -> None:
    assert server.predict("harmless", []).status_code == 200
    wait_until(lambda: server.describe("eager")["status"] == "READY", "a model that is loaded at the start")
    log = server.log.read_text()
    assert log.count("retry_threshold has no effect") == 1
    assert log.count("SERVING_USE_NATIVE_IO has no effect") == 1


def test_models_are_loaded_at_the_start_and_keep_a_worker_unless_they_want_none(server: Server) -> None:
    wait_until(lambda: server.describe("eager")["status"] == "READY", "a model that is loaded at the start")
    assert server.describe("eager")["minWorkers"] == 1
    assert server.describe("eager")["settingsFrom"]["minWorkers"] == "load_models"
    wait_until(lambda: server.describe("lazy")["status"] == "READY", "one that may go to sleep again")
    assert (server.describe("lazy")["minWorkers"], server.describe("lazy")["settingsFrom"]["minWorkers"]) == (
        0,
        "serving.properties",
    )
    assert "load_models: missing: Model not found: missing" in server.log.read_text()


def test_all_models_are_loaded_at_the_start(serve: Callable[..., Server], store: Path) -> None:
    for name in ("a", "b"):
        models.write_model(store / name, None, {"model.py": SHOW})
    server = serve(model_store=store, preload=LIGHT, load_models="ALL")
    wait_until(lambda: {m["status"] for m in listed(server)} == {"READY"}, "every model that is loaded at the start")


def listed(server: Server) -> list[dict[str, str]]:
    found: list[dict[str, str]] = server.management.get("/models").json()["models"]
    return found


def test_a_model_says_what_is_answered_to_who_accepts_anything(serve: Callable[..., Server], store: Path) -> None:
    files = {"serving.properties": "option.default_accept=text/csv\noption.env=OMP_NUM_THREADS=1\n"}
    models.write_model(store / "m", models.linear(), files)
    server = serve(model_store=store)
    for accept, text in (("*/*", "3.0\n"), ("text/csv", "3.0\n"), ("application/json", '{"predictions": [3.0]}')):
        assert server.predict("m", [[1.0]], headers={"accept": accept}).text == text
