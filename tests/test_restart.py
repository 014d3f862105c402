"""What was registered, scaled and withdrawn still is after a restart and after a crash; and what cannot be remembered
is not done."""

from __future__ import annotations

import contextlib
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, scale, write_coded

Start = Callable[[], Server]

# Seconds in which a server has to serve again what was registered, its start included.
_SOON = 10.0


@pytest.fixture
def start(serve: Callable[..., Server], store: Path) -> Start:
    """Starts servers with the same store and state, one after the other."""
    return lambda: serve(model_store=store, preload=LIGHT)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory for models that are not in the store."""
    return tmp_path / "elsewhere"


def stop(server: Server) -> None:
    assert server.stop() == 0


def kill(server: Server) -> None:
    server.process.kill()
    server.end()


def register(server: Server, directory: Path, **parameters: str) -> None:
    response = server.management.post("/models", params={"url": str(directory), **parameters})
    assert response.status_code == 200, response.text


def settings_of(server: Server, model: str) -> dict[str, Any]:
    """What holds, and where each comes from."""
    described = server.describe(model)
    return {name: (described[name], source) for name, source in described["settingsFrom"].items()}


def state_file(server: Server, model: str) -> Path:
    (found,) = Path(server.settings["state_dir"]).rglob(f"{model}.json")
    return found


def has_workers(server: Server, model: str, number: int) -> Callable[[], bool]:
    return lambda: len(server.worker_pids(model)) == number


def test_what_was_asked_holds_after_a_stop_and_after_a_crash(start: Start, store: Path, elsewhere: Path) -> None:
    write_coded(elsewhere / "registered", properties="job_queue_size=9\n")
    for name in ("scaled", "withdrawn", "untouched", "back"):
        write_coded(store / name)
    server = start()
    register(server, elsewhere / "registered", model_name="mine", min_worker="1", max_idle_time="77")
    assert scale(server, "mine", weight=2.5).status_code == 200
    assert scale(server, "scaled", min_worker=2, max_worker=3).status_code == 200
    for name in ("withdrawn", "back"):
        assert server.management.delete(f"/models/{name}").status_code == 200
    register(server, store / "back")
    assert ask(server, "untouched").status_code == 200
    before = {name: settings_of(server, name) for name in ("mine", "scaled")}
    assert before["mine"]["queueSize"] == (9, "serving.properties")

    stop(server)

    began = time.monotonic()
    server = start()
    # Nobody has asked for them.
    wait_until(has_workers(server, "mine", 1), "the worker of the registered model")
    wait_until(has_workers(server, "scaled", 2), "the workers of the scaled model")
    assert time.monotonic() - began < _SOON
    assert {name: settings_of(server, name) for name in ("mine", "scaled")} == before
    assert server.describe("mine")["modelUrl"] == str(elsewhere / "registered")
    for name in ("mine", "scaled", "untouched", "back"):
        assert ask(server, name).status_code == 200
    assert_error(ask(server, "withdrawn"), 404, "ModelNotFoundException", "withdrawn")
    # It is registered, and not only found.
    assert_error(server.management.post("/models", params={"url": "back"}), 409, "ConflictStatusException")
    register(server, store / "withdrawn")
    assert scale(server, "scaled", min_worker=1).status_code == 200
    assert server.management.delete("/models/untouched").status_code == 200
    kill(server)

    began = time.monotonic()
    server = start()
    for name in ("mine", "scaled"):
        wait_until(has_workers(server, name, 1), f"the worker of {name}")
    assert time.monotonic() - began < _SOON
    assert settings_of(server, "mine") == before["mine"]
    assert settings_of(server, "scaled") == {**before["scaled"], "minWorkers": (1, "scaling")}
    for name in ("mine", "scaled", "withdrawn", "back"):
        assert ask(server, name).status_code == 200
    assert_error(ask(server, "untouched"), 404, "ModelNotFoundException", "untouched")


def test_the_handler_that_was_said_at_registration_holds(start: Start, elsewhere: Path) -> None:
    files = {
        "service.py": "def handle(data, context): return data and ['by the file']\n"
        "def other(data, context): return data and ['by the registration']\n",
        "serving.properties": "option.handler=service:handle\n",
    }
    models.write_model(elsewhere / "coded", None, files)
    server = start()
    register(server, elsewhere / "coded", model_name="asked", handler="service:other")
    register(server, elsewhere / "coded", model_name="unasked")
    for _ in range(2):
        assert ask(server, "asked").text == "by the registration"
        assert ask(server, "unasked").text == "by the file"
        assert settings_of(server, "asked")["handler"] == ("service:other", "registration")
        assert settings_of(server, "unasked")["handler"] == ("service:handle", "serving.properties")
        kill(server)
        server = start()
    response = server.management.post(
        "/models", params={"url": str(elsewhere / "coded"), "model_name": "wrong", "handler": "service:none"}
    )
    assert_error(response, 424, "LoadError", "the handler has no none(data, context)")


def test_one_that_is_not_what_it_was_takes_nobody_else_with_it(start: Start, store: Path, elsewhere: Path) -> None:
    first = start()
    names = ["damaged", "cut", "gone", "broken", "whole", "foreign"]
    for name in names:
        write_coded(elsewhere / name)
        register(first, elsewhere / name, min_worker="1")
    write_coded(store / "left")
    assert scale(first, "left", min_worker=1).status_code == 200
    stop(first)
    state_file(first, "damaged").write_bytes(b"\0" * 100)
    cut = state_file(first, "cut")
    cut.write_bytes(cut.read_bytes()[:-20])
    foreign = state_file(first, "foreign")
    foreign.write_text(foreign.read_text().replace(str(elsewhere), "ftp://host"))
    shutil.rmtree(elsewhere / "gone")
    write_coded(elsewhere / "broken", load="raise ValueError('since then')")
    (store / "left").rename(elsewhere / "left")

    second = start()
    wait_until(has_workers(second, "whole", 1), "the worker of the model that is as it was")
    assert ask(second, "whole").status_code == 200
    log = second.log.read_text()
    for name in ("damaged", "cut"):
        assert ask(second, name).status_code == 404
        (aside,) = Path(second.settings["state_dir"]).rglob(f"{name}.json.damaged-*")
        assert f"'{name}.json'" in log
        assert aside.name in log
        # It can be registered again.
        register(second, elsewhere / name)
        assert ask(second, name).status_code == 200
    for name in ("left", "foreign"):
        assert_error(ask(second, name), 404, "ModelNotFoundException", name)
    assert "ftp://host/foreign" in log
    gone, broken = ask(second, "gone"), ask(second, "broken")
    assert gone.status_code == 424
    assert "gone" in gone.json()["message"]
    assert_error(broken, 424, "ValueError", "since then")
    wait_until(
        lambda: "model_failed gone" in second.log.read_text() and "model left" in second.log.read_text(), "their names"
    )
    assert second.client.get("/ping").status_code == 200
    # They are still registered.
    for name in ("gone", "broken"):
        assert second.describe(name)["modelUrl"] == str(elsewhere / name)


@contextlib.contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """Lets the server write no file any more, as if there were no room."""
    process = psutil.Process(server.process.pid)
    before = process.rlimit(resource.RLIMIT_FSIZE)
    process.rlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_directory(server: Server) -> Iterator[None]:
    """Puts a file where the server's state was."""
    (directory,) = Path(server.settings["state_dir"]).iterdir()
    moved = directory.rename(directory.with_name("moved"))
    directory.touch()
    try:
        yield
    finally:
        directory.unlink()
        moved.rename(directory)


def described(server: Server, model: str) -> dict[str, Any]:
    """Without what its workers hold, which changes by itself."""
    found = server.describe(model)
    for worker in found["workers"]:
        del worker["memoryUsage"]
    return found


def test_what_cannot_be_remembered_is_not_done(start: Start, store: Path, elsewhere: Path) -> None:
    for directory in (elsewhere / "new", elsewhere / "known", store / "stored"):
        write_coded(directory)
    first = start()
    register(first, elsewhere / "known", min_worker="1")
    assert ask(first, "stored").status_code == 200
    before = described(first, "known"), described(first, "stored")
    for trouble in (full_disk, no_directory):
        with trouble(first):
            for refused in (
                first.management.post("/models", params={"url": str(elsewhere / "new")}),
                scale(first, "known", min_worker=2),
                scale(first, "stored", max_idle_time=5),
                first.management.delete("/models/stored"),
            ):
                assert_error(refused, 500, "StateNotSavedException", "state_dir")
            assert (described(first, "known"), described(first, "stored")) == before
            assert first.management.get("/models/new").status_code == 404
        for name in ("known", "stored"):
            assert ask(first, name).status_code == 200
        before = described(first, "known"), described(first, "stored")
    # It goes on as soon as there is room.
    register(first, elsewhere / "new")
    kill(first)

    second = start()
    wait_until(has_workers(second, "known", 1), "the worker of the registered model")
    for name in ("new", "known", "stored"):
        assert ask(second, name).status_code == 200
    assert settings_of(second, "known")["minWorkers"] == (1, "registration")
