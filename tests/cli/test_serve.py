"""`mmserve serve` as the command of a container: SageMaker's variables, and what its platform asks such a server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mmserve.cli.container import in_container
from mmserve.config import Loaded, load
from mmserve.errors import StartError
from tests import models_for_tests as models
from tests.cli.command import Command
from tests.servers import DEADLINE, wait_until
from tests.supervision.coded import code

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
# Of models that never give their memory back by themselves.
KEPT = {"serving.properties": "minWorkers=1\nmaxWorkers=1\n"}
_FILLER = 96 * 1024 * 1024


@contextmanager
def container(mmserve: Command, **environment: str) -> Iterator[httpx.Client]:
    """A running container. Its port is said by SageMaker, or else nothing would keep two tests apart."""
    for name in ("MMSERVE_INFERENCE_ADDRESS", "MMSERVE_MANAGEMENT_ADDRESS"):
        mmserve.environment.pop(name, None)
    process = mmserve.popen("serve", **{"SAGEMAKER_BIND_TO_PORT": "0", "MMSERVE_PRELOAD": "numpy", **environment})
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://0.0.0.0:" in line
    port = line.partition("http://0.0.0.0:")[2].split()[0].rstrip(",")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE, trust_env=False) as client:
        yield client
    process.terminate()
    stdout, log = process.communicate(timeout=DEADLINE)
    assert (process.returncode, stdout) == (0, ""), log
    assert not mmserve.processes()


class Agent:
    """SageMaker's, which has untarred a model before it asks for it to be loaded."""

    def __init__(self, client: httpx.Client, directory: Path) -> None:
        self.client = client
        self._directory = directory

    def untar(self, name: str, files: dict[str, str]) -> str:
        return str(models.write_model(self._directory / name / "model", files=files))

    def load(self, name: str, url: str) -> int:
        response = self.client.post("/models", json={"model_name": name, "url": url})
        return response.status_code

    def unload(self, name: str) -> int:
        return self.client.delete(f"/models/{name}").status_code

    def invoke(self, name: str, body: str = "x") -> httpx.Response:
        headers = {"content-type": "text/plain", TARGET_MODEL: f"some/where/{name}.tar.gz"}
        return self.client.post(f"/models/{name}/invoke", content=body, headers=headers)

    def pages(self) -> list[list[str]]:
        found: list[list[str]] = []
        token: dict[str, str] = {}
        while True:
            page: dict[str, Any] = self.client.get("/models", params=token).json()
            found.append([model["modelName"] for model in page["models"]])
            if "nextPageToken" not in page:
                return found
            token = {"next_page_token": page["nextPageToken"]}

    def worker(self, name: str) -> psutil.Process:
        (worker,) = self.client.get(f"/models/{name}").json()["workers"]
        return psutil.Process(worker["pid"])


def test_the_platform_loads_asks_lists_and_unloads_models(mmserve: Command, tmp_path: Path) -> None:
    with container(mmserve, SAGEMAKER_MULTI_MODEL="true") as client:
        agent = Agent(client, tmp_path)
        assert client.get("/ping").status_code == 200
        assert agent.pages() == [[]]
        urls = {name: agent.untar(name, {"model.py": code(f"return Output().add({name!r})")}) for name in "abc"}
        assert [agent.load(name, url) for name, url in urls.items()] == [200, 200, 200]
        assert agent.pages() == [["a", "b", "c"]]
        told = client.get("/models/b").json()
        # Ready to serve, and not only known.
        assert (told["modelName"], told["modelUrl"], told["status"]) == ("b", urls["b"], "READY")
        assert [agent.invoke(name).text for name in urls] == ["a", "b", "c"]

        assert agent.load("a", urls["a"]) == 409
        worker = agent.worker("b")
        assert agent.unload("b") == 200
        assert not worker.is_running()
        assert [agent.unload("b"), agent.invoke("b").status_code, client.get("/models/b").status_code] == [404] * 3
        assert agent.pages() == [["a", "c"]]
        assert agent.load("b", urls["b"]) == 200
        assert agent.invoke("b").text == "b"


def test_what_a_model_answers_is_passed_through(mmserve: Command, tmp_path: Path) -> None:
    handler = (
        "properties = {name.lower(): value for name, value in inputs.get_properties().items()}\n"
        "if asked == 'attributes':\n"
        "    return Output().add(properties['x-amzn-sagemaker-custom-attributes']).add_property('X-Own', 'yes')\n"
        "return Output(code=int(asked)).add('because')"
    )
    with container(mmserve, SAGEMAKER_MULTI_MODEL="TRUE") as client:
        agent = Agent(client, tmp_path)
        assert agent.load("coded", agent.untar("coded", {"model.py": code(handler)})) == 200
        for status in (400, 404, 503, 599):
            answer = agent.invoke("coded", str(status))
            assert (answer.status_code, answer.text) == (status, "because")
        headers = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1", "X-Nobody-Knows": "this"}
        answer = client.post("/models/coded/invoke", content="attributes", headers=headers)
        assert (answer.text, answer.headers["x-own"]) == ("trace=1", "yes")


def test_a_model_that_does_not_load_is_not_there(mmserve: Command, tmp_path: Path) -> None:
    with container(mmserve, SAGEMAKER_MULTI_MODEL="true") as client:
        agent = Agent(client, tmp_path)
        broken = agent.untar("broken", {"model.py": "raise RuntimeError('no such city')"})
        response = client.post("/models", json={"model_name": "broken", "url": broken})
        assert response.status_code == 424
        assert "no such city" in response.json()["message"]
        assert agent.load("nowhere", str(tmp_path / "nowhere")) == 404
        assert agent.pages() == [[]]
        assert client.get("/ping").status_code == 200


@pytest.mark.parametrize(("count", "sizes"), [(100, [100]), (200, [100, 100]), (201, [100, 100, 1])])
def test_no_page_is_empty(mmserve: Command, tmp_path: Path, count: int, sizes: list[int]) -> None:
    with container(mmserve, SAGEMAKER_MULTI_MODEL="true") as client, ThreadPoolExecutor(8) as threads:
        agent = Agent(client, tmp_path)
        url = agent.untar("same", {"model.py": code()})

        def register(number: int) -> int:
            # Without a worker, which is not what this is about.
            asked = {"model_name": f"m-{number}", "url": url, "min_worker": 0}
            return client.post("/models", json=asked).status_code

        assert set(threads.map(register, range(count))) == {200}
        assert [len(page) for page in agent.pages()] == sizes
        assert len({name for page in agent.pages() for name in page}) == count


def test_want_of_memory_is_507_until_something_is_unloaded(mmserve: Command, tmp_path: Path) -> None:
    load = f"filler = b'x' * {_FILLER}"
    with container(mmserve, SAGEMAKER_MULTI_MODEL="true", MMSERVE_MEMORY_BUDGET=str(512 * 1024 * 1024)) as client:
        agent = Agent(client, tmp_path)
        statuses = []
        names = [f"m-{number}" for number in range(8)]
        for name in names:
            statuses.append(agent.load(name, agent.untar(name, {"model.py": code(load=load), **KEPT})))
            if statuses[-1] != 200:
                break
        loaded = len(statuses) - 1
        assert statuses == [200] * loaded + [507]
        assert loaded >= 1
        refused = names[loaded]
        # It is as if it had not been asked for, and hurts nobody.
        assert agent.pages() == [names[:loaded]]
        assert agent.invoke(names[0]).status_code == 200

        worker = agent.worker(names[0])
        assert agent.unload(names[0]) == 200
        assert not worker.is_running()
        assert agent.load(refused, str(tmp_path / refused / "model")) == 200
        assert agent.invoke(refused).status_code == 200


def test_one_model_is_served_from_where_the_platform_puts_it(mmserve: Command, tmp_path: Path) -> None:
    models.write_model(tmp_path / "ml" / "model", files={"model.py": code("return Output().add('here')")})
    with container(mmserve, SAGEMAKER_BASE_DIR=str(tmp_path / "ml"), SAGEMAKER_MULTI_MODEL="false") as client:
        wait_until(lambda: client.get("/ping").status_code == 200, "the model")
        assert client.post("/invocations", content="x").text == "here"
        assert client.post("/endpoints/any/invocations", content="x").text == "here"
        (listed,) = client.get("/models").json()["models"]
        assert listed["modelUrl"] == str(tmp_path / "ml" / "model")


def test_the_one_model_is_meant_where_none_is_named_whatever_was_registered(mmserve: Command, tmp_path: Path) -> None:
    files = {"model.py": code("return Output().add('here')")}
    directory = models.write_model(tmp_path / "model", files=files)
    with container(mmserve, SAGEMAKER_MULTI_MODEL="true") as client:
        assert Agent(client, tmp_path).load("earlier", str(directory)) == 200
    with container(mmserve, SAGEMAKER_BASE_DIR=str(tmp_path)) as client:
        assert client.post("/invocations", content="x").text == "here"
        assert Agent(client, tmp_path).pages() == [["earlier", "model"]]


def test_a_script_is_called_and_answers_as_the_platform_says(mmserve: Command, tmp_path: Path) -> None:
    script = (
        "def model_fn(model_dir): return 2\n"
        "def input_fn(body, content_type): return float(body)\n"
        "def predict_fn(data, model): return data * model\n"
        "def output_fn(prediction, accept): return f'{accept}: {prediction}', accept\n"
    )
    models.write_model(tmp_path / "model" / "code", files={"score.py": script})
    said = {"SAGEMAKER_PROGRAM": "score.py", "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
    with container(mmserve, SAGEMAKER_BASE_DIR=str(tmp_path), **said) as client:
        answer = client.post("/invocations", content="3")
        assert (answer.text, answer.headers["content-type"]) == ("text/csv: 6.0", "text/csv")


def test_the_server_is_healthy_when_its_only_model_is_loaded(mmserve: Command, tmp_path: Path) -> None:
    load = f"open({str(tmp_path / 'loading')!r}, 'w').close()\n"
    load += f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.002)"
    directory = models.write_model(tmp_path / "slow", files={"model.py": code(load=load)})
    with container(mmserve, MMSERVE_MODEL=str(directory)) as client:
        wait_until((tmp_path / "loading").exists, "the model to be loading")
        assert client.get("/ping").status_code == 503
        (tmp_path / "go").touch()
        wait_until(lambda: client.get("/ping").status_code == 200, "the model")


def test_there_has_to_be_a_model(mmserve: Command, tmp_path: Path) -> None:
    line = mmserve.fail("serve", SAGEMAKER_BASE_DIR=str(tmp_path))
    assert line.endswith(f"The model is neither a directory nor an archive: {tmp_path}/model")
    assert not mmserve.processes()


def told(environment: dict[str, str], **flags: str) -> Loaded:
    return in_container(load(flags, environment), environment)


def test_everything_is_answered_at_one_address_of_all_interfaces() -> None:
    for environment, port in (({}, 8080), ({"SAGEMAKER_BIND_TO_PORT": "9000"}, 9000)):
        settings = told(environment).settings
        assert settings.inference_address == settings.management_address == f"http://0.0.0.0:{port}"
    settings = told({"SAGEMAKER_BIND_TO_PORT": "9000"}, inference_address="http://127.0.0.1:1").settings
    assert settings.inference_address == settings.management_address == "http://127.0.0.1:1"


def test_the_models_are_those_that_are_said_before_those_that_the_platform_has() -> None:
    assert told({}).settings.model == "/opt/ml/model"
    assert told({"SAGEMAKER_MULTI_MODEL": "false"}).settings.model == "/opt/ml/model"
    assert told({"SAGEMAKER_MULTI_MODEL": "true"}).settings.model is None
    assert told({}, model="churn.tar.gz").settings.model == "churn.tar.gz"
    assert told({}, model_store="/models").settings.model is None
    with pytest.raises(StartError, match=r"^SAGEMAKER_MULTI_MODEL is true or false, not 'yes'$"):
        told({"SAGEMAKER_MULTI_MODEL": "yes"})
    with pytest.raises(StartError, match=r"^--model and MMSERVE_MODEL_STORE say different things"):
        told({"MMSERVE_MODEL_STORE": "/models"}, model="churn")


def test_another_port_is_one_that_may_be_used() -> None:
    address = "http://127.0.0.1:9001"
    safe = {"SAGEMAKER_SAFE_PORT_RANGE": "9000-9010"}
    assert told(safe, management_address=address).settings.management_address == address
    assert told({}, management_address="http://127.0.0.1:7000").settings
    for said, reason in (("9002-9010", "is outside"), ("9001", "looks like"), ("a-b", "looks like")):
        with pytest.raises(StartError, match=reason):
            told({"SAGEMAKER_SAFE_PORT_RANGE": said}, management_address=address)


def test_a_port_that_is_taken_is_named(mmserve: Command, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("MMSERVE_INFERENCE_ADDRESS", "MMSERVE_MANAGEMENT_ADDRESS"):
        mmserve.environment.pop(name, None)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = mmserve.fail("serve", SAGEMAKER_BIND_TO_PORT=port, SAGEMAKER_BASE_DIR=str(tmp_path))
    assert f"http://0.0.0.0:{port}: Address already in use" in line
