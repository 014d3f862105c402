"""Code of every contract, through a real server: what an archive holds decides, and models do not see each other."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import LIGHT, Server

# Every model has these of its own, by the same names.
HELPER = "NAME = {name!r}\n"
UTILS = "import helper\n\ndef name():\n    return helper.NAME\n"

DJL = """
import utils
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add_as_json([utils.name(), inputs.get_as_json()])
"""
SAGEMAKER = """
import json
import utils

def model_fn(model_dir):
    return utils.name()

def input_fn(body, content_type):
    if content_type != "application/json":
        raise ValueError(f"not {content_type}")
    return json.loads(body)

def predict_fn(data, model):
    return [model, data]

def output_fn(prediction, accept):
    return json.dumps(prediction), accept
"""
MMS = """
import utils

def handle(data, context):
    if data is None:
        return None
    context.set_response_header(0, "X-Tenant", context.get_request_header(0, "x-tenant") or "none")
    context.set_response_header(0, "X-Shop", data[0].get("shop", b"none").decode())
    return [[utils.name(), row["body"]] for row in data]
"""
CLASS = """
import utils
from mms.service import PredictionException

class Service:
    def initialize(self, context):
        self.name = utils.name()

    def handle(self, data, context):
        if data[0]["body"] == "bad":
            raise PredictionException("not today", 422)
        return [[self.name, row["body"]] for row in data]
"""

CONFIGURED = """
class Service:
    def initialize(self, context):
        self.threshold = context.model_yaml_config["handler"]["threshold"]
        self.batch_size = context.system_properties["batch_size"]

    def handle(self, data, context):
        return [[self.threshold, self.batch_size] for _ in data]
"""


def write(store: Path, name: str, **files: str) -> None:
    files = {"helper.py": HELPER.format(name=name), "utils.py": UTILS, **files}
    models.write_model(store / name, files=files)


def write_mar(store: Path, name: str) -> None:
    manifest = {"runtime": "python", "model": {"modelName": name, "handler": "service:handle"}}
    with zipfile.ZipFile(store / f"{name}.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("service.py", MMS)
        archive.writestr("helper.py", HELPER.format(name=name))
        archive.writestr("utils.py", UTILS)


def write_torchserve_mar(store: Path) -> None:
    manifest = {"model": {"handler": "service.py", "configFile": "config.yaml"}}
    with zipfile.ZipFile(store / "configured.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("service.py", CONFIGURED)
        archive.writestr("config.yaml", "minWorkers: 0\nmaxWorkers: 1\nbatchSize: 4\nhandler:\n  threshold: 0.25\n")


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    store = tmp_path_factory.mktemp("store")
    for place in (1, 2):
        write(store, f"djl{place}", **{"model.py": DJL})
        write(store, f"sagemaker{place}", **{"inference.py": SAGEMAKER})
        write_mar(store, f"mar{place}")
        write(store, f"class{place}", **{"service.py": CLASS, "serving.properties": "option.handler=service.py\n"})
        write(store, f"mms{place}", **{"model.py": MMS})
    write_torchserve_mar(store)
    return serve_module(model_store=store, preload=LIGHT)


NAMES = [f"{kind}{place}" for kind in ("djl", "sagemaker", "mar", "class", "mms") for place in (1, 2)]


def test_models_whose_modules_share_names_do_not_see_each_other(server: Server) -> None:
    def ask(name: str) -> object:
        return [server.predict(name, [number]).json() for number in range(3)]

    with ThreadPoolExecutor(len(NAMES)) as threads:
        answers = dict(zip(NAMES, threads.map(ask, NAMES), strict=True))
    assert answers == {name: [[name, [number]] for number in range(3)] for name in NAMES}


def test_what_a_handler_says_beside_its_answer_reaches_the_caller(server: Server) -> None:
    response = server.predict("mar1", [1], headers={"X-TENANT": "acme"}, params={"shop": "north"})
    assert (response.json(), response.headers["x-tenant"]) == (["mar1", [1]], "acme")
    assert response.headers["x-shop"] == "north"
    response = server.predict("sagemaker1", [1], headers={"accept": "application/json"})
    assert response.headers["content-type"] == "application/json"


def test_errors_are_one_line_each_and_the_traceback_stays_in_the_log(server: Server) -> None:
    response = server.client.post("/predictions/sagemaker1", content=b"x", headers={"content-type": "text/html"})
    assert_error(response, 424, "ValueError", "not text/html")
    assert_error(server.predict("class1", "bad"), 422, "PredictionException", "not today")
    assert "Traceback" not in response.text
    assert "Traceback" in server.log.read_text()


def test_the_configuration_in_an_archive_of_torchserve_holds(server: Server) -> None:
    assert server.predict("configured", [1]).json() == [0.25, 4]
    described = server.describe("configured")
    assert (described["maxWorkers"], described["batchSize"]) == (1, 4)
    sources = described["settingsFrom"]
    assert (sources["maxWorkers"], sources["batchSize"]) == ("model-config.yaml", "model-config.yaml")
