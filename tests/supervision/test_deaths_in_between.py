"""Deaths at the moments between two messages, and deaths that come again and again: nothing is lost, left or tried
for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

# Seconds for which something that must not happen is waited for. Where it did happen, it took a tenth of that.
_OBSERVED = 0.5

# The template dies right after it has cloned its first worker, before it can tell. {worker} is what the worker does.
_DEATH_AFTER_CLONE = """
import os, signal
from mmserve_worker import process

fork_sibling = process.fork_sibling

def fork_and_die():
    try:
        os.close(os.open({flag!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return fork_sibling()
    pid = fork_sibling()
    if pid:
        os.kill(os.getpid(), signal.SIGKILL)
    {worker}
    return pid

process.fork_sibling = fork_and_die
"""
_DEATH_AT_EACH_FORK = "import os\nos.register_at_fork(before=os.abort)\n"
_ANSWER_PID = "import os\nreturn Output().add_as_json(os.getpid())"


def write_coded(directory: Path, handler: str = _ANSWER_PID, *, load: str = "") -> None:
    """A model without scikit-learn: `load` runs when it is loaded, and `handler` for each request."""
    body = handler.replace("\n", "\n    ")
    code = f"from djl_python import Output\n{load}\ndef handle(inputs):\n    if inputs.is_empty(): return\n    {body}\n"
    models.write_model(directory, files={"model.py": code})


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A directory of library modules, for servers with `environment=path_of(library)`."""
    directory = tmp_path / "library"
    directory.mkdir()
    return directory


def path_of(library: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(library)}


def status(server: Server) -> dict[str, Any]:
    said: dict[str, Any] = server.management.get("/status").json()
    return said


def deaths_of_templates(server: Server) -> int:
    return server.log.read_text().count("template_died")


def stays(value: Callable[[], int], expected: int) -> bool:
    """Whether a number that must not grow is the same all the time that it is looked at."""
    end = time.monotonic() + _OBSERVED
    while time.monotonic() < end:
        if value() != expected:
            return False
    return True


@pytest.mark.parametrize(
    "worker", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["worker-lives", "worker-dies-too"]
)
def test_a_template_killed_before_it_told_of_a_worker_leaves_no_other_process(
    serve: Callable[..., Server], store: Path, library: Path, tmp_path: Path, worker: str
) -> None:
    flag = tmp_path / "died"
    (library / "fault.py").write_text(_DEATH_AFTER_CLONE.format(flag=str(flag), worker=worker))
    write_coded(store / "coded")
    server = serve(model_store=store, preload=f"{LIGHT},fault", environment=path_of(library))
    first = server.template_pid()
    answered = server.predict("coded", []).json()
    assert flag.exists()
    assert server.worker_pids("coded") == [answered]

    def known() -> set[int]:
        return {server.process.pid, status(server)["template"]["pid"], answered}

    wait_until(lambda: set(server.processes()) == known(), "the end of every process that the server does not know")
    assert server.template_pid() != first
    assert server.predict("coded", []).json() == answered


def test_a_model_that_dies_after_it_was_loaded_is_not_started_for_ever(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    dying = (
        f"import os, threading\nif not os.path.exists({str(mended)!r}): threading.Timer(0.01, os._exit, [3]).start()"
    )
    write_coded(store / "dying", load=dying)
    server = serve(model_store=store, preload=LIGHT)
    scaled = server.management.put("/models/dying", params={"min_worker": 1, "synchronous": "false"})
    assert scaled.status_code == 202
    failure = wait_until(lambda: server.describe("dying").get("failure"), "a failure")
    assert failure["type"] == "WorkerDiedException"
    assert "exit code 3" in failure["message"]
    assert server.describe("dying")["status"] == "FAILED"
    tried = status(server)["workersStarted"]
    assert tried == 3
    assert stays(lambda: status(server)["workersStarted"], tried)
    mended.touch()
    wait_until(lambda: server.predict("dying", []).status_code == 200, "the end of the back-off")
    assert status(server)["workersStarted"] == tried + 1
    assert server.describe("dying")["status"] == "READY"
    assert "failure" not in server.describe("dying")


def test_who_waits_for_a_worker_that_is_killed_while_it_loads_is_answered_by_the_next(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    load = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.002)"
    write_coded(store / "slow", load=load)
    server = serve(model_store=store, preload=LIGHT)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(server.predict, "slow", []) for _ in range(3)]
        wait_until(lambda: server.describe("slow")["requestInQueue"] == 3, "all in the queue")
        (killed,) = wait_until(lambda: server.worker_pids("slow"), "a worker")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: server.worker_pids("slow") not in ([], [killed]), "another worker")
        gate.touch()
        assert [done.result().status_code for done in asked] == [200] * 3
    assert killed not in [done.result().json() for done in asked]


def test_a_template_that_dies_at_each_fork_is_not_tried_for_ever(
    serve: Callable[..., Server], store: Path, library: Path
) -> None:
    (library / "fault.py").write_text(_DEATH_AT_EACH_FORK)
    write_coded(store / "coded")
    server = serve(model_store=store, preload=f"{LIGHT},fault", environment=path_of(library))
    refused = server.predict("coded", [])
    assert (refused.status_code, refused.json()["type"]) == (424, "WorkerStartException")
    assert "again and again" in refused.json()["message"]
    deaths = deaths_of_templates(server)
    assert deaths == 3
    assert server.template_pid()
    assert stays(lambda: deaths_of_templates(server), deaths)
    assert server.describe("coded")["status"] == "FAILED"
    assert server.client.get("/ping").status_code == 200


def test_a_learned_module_that_ends_templates_when_they_fork_is_forgotten(
    serve: Callable[..., Server], store: Path, library: Path
) -> None:
    (library / "fault.py").write_text(_DEATH_AT_EACH_FORK)
    write_coded(store / "poison", load="import fault")
    write_coded(store / "coded")
    server = serve(model_store=store, preload=LIGHT, environment=path_of(library))
    first = server.template_pid()
    configured = status(server)["template"]["modules"]
    poison = server.predict("poison", []).json()
    wait_until(lambda: server.template_pid() != first, "a template that has learned")
    refused = server.predict("coded", [])
    assert (refused.status_code, refused.json()["type"]) == (424, "WorkerStartException")
    wait_until(lambda: server.predict("coded", []).status_code == 200, "the end of the back-off")
    assert status(server)["template"]["modules"] == configured
    assert deaths_of_templates(server) == 3
    assert server.predict("poison", []).json() == poison


def test_a_template_killed_once_while_it_imports_blames_no_module(
    serve: Callable[..., Server], store: Path, library: Path, tmp_path: Path
) -> None:
    importing, gate = tmp_path / "importing", tmp_path / "gate"
    (library / "slow.py").write_text(
        f"import os, time\nwith open({str(importing)!r}, 'w') as file: file.write(str(os.getpid()))\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.002)\n"
    )
    write_coded(store / "coded")
    server = serve(model_store=store, preload=f"{LIGHT},slow", environment=path_of(library))
    killed = int(wait_until(lambda: importing.exists() and importing.read_text(), "the import"))
    os.kill(killed, signal.SIGKILL)
    gate.touch()
    assert server.template_pid() != killed
    assert server.predict("coded", []).status_code == 200
    assert "not preloaded" not in server.log.read_text()
    assert deaths_of_templates(server) == 1
    assert status(server)["template"]["modules"] == 2


def test_a_model_can_use_a_pool_of_processes(serve: Callable[..., Server], store: Path) -> None:
    """Its processes end by SIGTERM, which the worker they are forked from takes no notice of."""
    squares = (
        "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    return Output().add_as_json(pool.map(abs, [-1, -2, -3]))"
    )
    write_coded(store / "pooling", squares)
    server = serve(model_store=store, preload=LIGHT, request_timeout=10)
    for _ in range(2):
        response = server.predict("pooling", [])
        assert (response.status_code, response.text.replace(" ", "")) == (200, "[1,2,3]")


_LAZY = """
import importlib.util, sys
spec = importlib.util.find_spec("xmlrpc.client")
spec.loader = loader = importlib.util.LazyLoader(spec.loader)
sys.modules["xmlrpc.client"] = module = importlib.util.module_from_spec(spec)
loader.exec_module(module)
"""
_RAISING = """
import sys
class Odd:
    def __getattr__(self, name):
        raise RuntimeError(name)
sys.modules["odd"] = Odd()
"""
_NONE = "import sys\nsys.modules['nothing'] = None"


def test_nothing_that_a_model_puts_among_the_modules_keeps_it_from_loading(
    serve: Callable[..., Server], store: Path
) -> None:
    loads = {"lazy": _LAZY, "raising": _RAISING, "none": _NONE}
    for name, load in loads.items():
        write_coded(store / name, load=load)
    server = serve(model_store=store, preload=LIGHT)
    for name in loads:
        response = server.predict(name, [])
        assert response.status_code == 200, (name, response.text)
    assert status(server)["workersEnded"] == 0


def test_models_see_nothing_of_the_environment_but_what_is_named(serve: Callable[..., Server], store: Path) -> None:
    environment = (
        "import os\nfrom pathlib import Path\nstarted = Path('/proc/self/environ').read_text().split('\\0')\n"
        "return Output().add_as_json([dict(os.environ), started])"
    )
    write_coded(store / "curious", environment)
    secrets = {
        "AWS_ACCESS_KEY_ID": "hidden-1",
        "AWS_SECRET_ACCESS_KEY": "hidden-2",
        "AWS_SESSION_TOKEN": "hidden-3",
        "DATABASE_URL": "hidden-4",
    }
    server = serve(
        model_store=store,
        preload=LIGHT,
        worker_environment="REGION_OF_MODELS,ABSENT",
        environment={**secrets, "REGION_OF_MODELS": "north"},
    )
    response = server.predict("curious", [])
    seen, started = response.json()
    assert "hidden-" not in response.text
    assert not secrets.keys() & seen.keys()
    assert seen["REGION_OF_MODELS"] == "north"
    assert "REGION_OF_MODELS=north" in started
    assert seen["PATH"] == os.environ["PATH"]
