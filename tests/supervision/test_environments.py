"""Models with a requirements.txt: each environment is made once, is shared by those that need the same, and has a
template of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import DEADLINE, LIGHT, Server, wait_until
from tests.supervision.coded import ask, reasons, scale, stays
from tests.supervision.environments import environments, run, told, write_needy
from tests.wheels import write_wheel

Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def offline(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that makes environments of wheels in archives alone."""
    store = tmp_path_factory.mktemp("store")
    write_needy(store / "one", "tiny==1.0")
    write_needy(store / "same", "# the same\nTiny == 1.0\n")
    write_needy(store / "two", "tiny==2.0")
    return serve_module(model_store=store, preload=LIGHT, environments_offline="true", store_check_interval=0.1)


def store_of(server: Server) -> Path:
    return Path(server.settings["model_store"])


def test_models_that_need_the_same_share_an_environment_that_is_made_once(
    offline: Server, threads: ThreadPoolExecutor
) -> None:
    asked = [threads.submit(run, offline, name) for name in ("one", "same") * 4]
    answers = {one.result() for one in asked}
    assert len(answers) == 1
    ((prefix, version),) = answers
    assert version == "1.0"
    assert prefix not in (sys.prefix, sys.base_prefix)
    key = offline.describe("one")["environment"]
    assert os.path.basename(prefix) == key == offline.describe("same")["environment"]
    (built,) = told(offline, "environment_built")
    assert built["key"] == key
    assert environments(offline)["tiny==1.0"]["state"] == "READY"


def test_models_that_need_two_versions_serve_side_by_side(offline: Server) -> None:
    one, two = run(offline, "one"), run(offline, "two")
    assert (one.version, two.version) == ("1.0", "2.0")
    assert one.prefix != two.prefix


def test_what_needs_no_environment_has_none(offline: Server) -> None:
    write_needy(store_of(offline) / "usual", "numpy\nscikit-learn>=1\n", module="numpy", has=())
    assert run(offline, "usual").prefix == sys.prefix
    assert offline.describe("usual")["environment"] is None


def test_an_environment_has_the_servers_scikit_learn_unless_it_asks_for_another(offline: Server) -> None:
    """As the containers have it for whose models these files were written."""
    models.write_model(store_of(offline) / "plain", models.linear(), files={"requirements.txt": "tiny==1.0"})
    write_wheel(store_of(offline) / "plain" / "requirements", "tiny", "1.0")
    assert offline.predictions("plain", [[1.0]]) == [3.0]
    assert offline.describe("plain")["environment"] is not None


def test_a_library_that_its_environment_lacks_is_to_be_added_to_the_models_requirements(offline: Server) -> None:
    directory = write_needy(store_of(offline) / "lacking", "tiny==1.0")
    (directory / "model.py").unlink()
    (directory / "model.onnx").touch()
    message = "model.onnx needs onnxruntime, which is not installed: add onnxruntime to the model's requirements.txt"
    assert_error(ask(offline, "lacking"), 424, "LoadError", message)


def test_requirements_that_cannot_be_met_are_the_models_failure_with_what_uv_says(offline: Server) -> None:
    write_needy(store_of(offline) / "three", "tiny==3.0")
    write_needy(store_of(offline) / "also-three", "tiny==3.0")
    response = ask(offline, "three")
    assert_error(response, 424, "EnvironmentFailedException", "tiny==3.0", "uv says")
    assert offline.describe("three")["failure"]["type"] == "EnvironmentFailedException"
    assert ask(offline, "also-three").status_code == 424
    failed = told(offline, "environment_failed")
    assert "tiny==3.0" in failed[0]["reason"]
    assert environments(offline)["tiny==3.0"]["state"] == "FAILED"
    assert run(offline, "one").version == "1.0"


def test_newer_requirements_take_over_without_a_failed_request(offline: Server) -> None:
    model = write_needy(store_of(offline) / "changes", "tiny==1.0")
    assert run(offline, "changes").version == "1.0"
    (model / "requirements.txt").write_text("tiny==2.0")
    wait_until(lambda: run(offline, "changes").version == "2.0", "the newer version")
    (model / "requirements.txt").write_text("tiny==4.0")
    wait_until(lambda: reasons(offline, "changes", "replacement_failed"), "a look at what cannot be met")
    assert run(offline, "changes").version == "2.0"


def test_a_template_of_an_environment_that_dies_is_replaced(offline: Server) -> None:
    first = run(offline, "two")
    pid = environments(offline)["tiny==2.0"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: environments(offline)["tiny==2.0"]["pid"] not in (0, pid), "another template")
    for worker in offline.worker_pids("two"):
        os.kill(worker, signal.SIGKILL)
    assert run(offline, "two") == first


def test_the_next_server_finds_what_was_made_and_ends_what_nobody_uses(serve: Serve, offline: Server) -> None:
    settings = {"cache_dir": offline.settings["cache_dir"], "model_store": store_of(offline), "preload": LIGHT}
    before = run(offline, "one")
    server = serve(**settings, environments_offline="true", environment_idle_time=0, max_idle_time=0.1)
    assert run(server, "one") == before
    assert not told(server, "environment_built")
    template = environments(server)["tiny==1.0"]["pid"]
    wait_until(lambda: environments(server)["tiny==1.0"]["state"] == "IDLE", "the end of the environment's template")
    wait_until(lambda: template not in server.processes(), "the end of its process")
    assert run(server, "one") == before


@pytest.fixture
def silent_index() -> Iterator[socket.socket]:
    """A package index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE)
        yield listening


def served_from(index: socket.socket, serve: Serve, store: Path) -> Server:
    """A server whose environments are never finished."""
    variables = {"PIP_INDEX_URL": f"http://127.0.0.1:{index.getsockname()[1]}/simple", "NO_PROXY": "*"}
    return serve(model_store=store, preload=LIGHT, drain_timeout=0.3, environment=variables)


def unfinished(server: Server) -> list[str]:
    directory = Path(server.settings["cache_dir"], "environments")
    # It is made with the first of them.
    entries = os.listdir(directory) if directory.exists() else []
    return [name for name in entries if name.startswith(".tmp")]


def test_who_waits_for_an_environment_is_told_and_it_goes_on(
    serve: Serve, store: Path, silent_index: socket.socket, threads: ThreadPoolExecutor
) -> None:
    more = "option.model_loading_timeout=0.3\n"
    write_needy(store / "slow", "tiny==1.0", has=(), more=more)
    write_needy(store / "patient", "tiny==1.0", has=())
    server = served_from(silent_index, serve, store)
    assert_error(ask(server, "slow"), 424, "EnvironmentNotReadyException", "model_loading_timeout")
    assert environments(server)["tiny==1.0"]["state"] == "PENDING"
    waiting = threads.submit(ask, server, "patient")
    wait_until(lambda: environments(server)["tiny==1.0"]["workers"] == 1, "one that waits")
    # Who is taken away does not wait for it.
    assert server.management.delete("/models/patient").status_code == 200
    assert waiting.result().status_code >= 400
    assert stays(lambda: environments(server)["tiny==1.0"]["state"], "PENDING")
    # So far has uv come by now.
    silent_index.accept()[0].close()
    assert unfinished(server)
    assert server.stop() == 0
    assert unfinished(server) == []


def test_a_server_that_stops_at_once_leaves_no_half_of_an_environment(
    serve: Serve, store: Path, silent_index: socket.socket
) -> None:
    write_needy(store / "needy", "tiny==1.0", has=())
    server = served_from(silent_index, serve, store)
    assert scale(server, "needy", min_worker=1, synchronous="false").status_code == 202
    wait_until(lambda: unfinished(server), "the first step")
    assert server.stop() == 0
    assert unfinished(server) == []


def test_a_server_that_makes_no_environments_says_so(serve: Serve, store: Path) -> None:
    write_needy(store / "needy", "tiny==1.0")
    server = serve(model_store=store, preload=LIGHT, environments="refuse")
    assert_error(ask(server, "needy"), 424, "RequirementsError", "tiny==1.0", "environments")


def test_a_server_that_ignores_requirements_serves_with_its_own_packages(serve: Serve, store: Path) -> None:
    write_needy(store / "old", "numpy==1.22.3", module="numpy", has=())
    server = serve(model_store=store, preload=LIGHT, environments="ignore")
    assert run(server, "old").prefix == sys.prefix
    assert "numpy==1.22.3" in server.log.read_text()


def test_a_killed_server_takes_uv_with_it_and_the_next_one_clears_up(
    serve: Serve, store: Path, silent_index: socket.socket
) -> None:
    write_needy(store / "needy", "tiny==1.0", has=())
    server = served_from(silent_index, serve, store)
    assert scale(server, "needy", min_worker=1, synchronous="false").status_code == 202
    silent_index.accept()[0].close()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not server.processes(), "the end of uv and of the template")
    (left,) = unfinished(server)
    # It tries the same again, in a directory of its own.
    assert left not in unfinished(served_from(silent_index, serve, store))
