"""A newer archive under the same name: it is loaded beside the old one, and takes over only once it is ready."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests import models_for_tests as models
from tests.http.gates import Gate
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, code, count, counting, events, put, ready, reasons, scale, write_coded

# Seconds between two looks at the store.
_INTERVAL = 0.1
_CALLERS = 3


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT, store_check_interval=_INTERVAL)


@pytest.fixture
def store(server: Server) -> Path:
    return Path(server.settings["model_store"])


@contextmanager
def asked_all_the_time(server: Server, model: str) -> Iterator[Callable[[], list[list[str]]]]:
    """Callers of a model who ask again as soon as they are answered, which they always have to be. Gives what each of
    them was answered so far."""
    enough = threading.Event()
    answers: list[list[str]] = [[] for _ in range(_CALLERS)]

    def call(mine: list[str]) -> None:
        while not enough.is_set():
            answer = ask(server, model)
            assert answer.status_code == 200, answer.text
            mine.append(answer.text)

    with ThreadPoolExecutor(_CALLERS) as threads:
        calling: list[Future[None]] = [threads.submit(call, mine) for mine in answers]
        try:
            yield lambda: answers
        finally:
            enough.set()
        for caller in calling:
            caller.result()


def all_answer(answers: Callable[[], list[list[str]]], expected: str) -> Callable[[], bool]:
    return lambda: all(mine and mine[-1] == expected for mine in answers())


def answering(server: Server, model: str, expected: str) -> Callable[[], bool]:
    return lambda: ask(server, model).text == expected


def changes(answers: list[str]) -> list[tuple[str, str]]:
    return [(before, after) for before, after in pairwise(answers) if before != after]


def test_a_newer_archive_takes_over_under_load_and_nobody_fails(server: Server, store: Path) -> None:
    put(store / "served.tar.gz", "old")
    with asked_all_the_time(server, "served") as answers:
        wait_until(all_answer(answers, "old"), "answers")
        put(store / "served.tar.gz", "new")
        wait_until(all_answer(answers, "new"), "answers of the newer archive")
    # Never back.
    assert [changes(mine) for mine in answers()] == [[("old", "new")]] * _CALLERS
    wait_until(lambda: "new_version" in reasons(server, "served", "worker_stopped"), "the end of the old worker")
    assert len(events(server, "served", "model_replaced")) == 1
    assert "new_version" in reasons(server, "served", "worker_started")


def test_the_old_one_serves_for_as_long_as_the_newer_one_loads(server: Server, store: Path, tmp_path: Path) -> None:
    loading, opened = tmp_path / "loading", tmp_path / "opened"
    load = f"{counting(loading)}\nwhile not os.path.exists({str(opened)!r}): time.sleep(0.002)"
    put(store / "slow.tar.gz", "old")
    with asked_all_the_time(server, "slow") as answers:
        wait_until(all_answer(answers, "old"), "answers")
        put(store / "slow.tar.gz", "new", load=load)
        wait_until(loading.exists, "a worker that loads the newer archive")
        so_far = len(answers()[0])
        wait_until(lambda: len(answers()[0]) > so_far + 10, "further answers")
        assert all_answer(answers, "old")()
        opened.touch()
        wait_until(all_answer(answers, "new"), "answers of the newer archive")
    assert count(loading) == 1


@pytest.mark.parametrize("how", ["raises", "dies", "no-archive"])
def test_a_broken_newer_archive_changes_nothing_until_it_is_mended(server: Server, store: Path, how: str) -> None:
    model = f"broken-{how}"
    archive = store / f"{model}.tar.gz"
    put(archive, "old")
    with asked_all_the_time(server, model) as answers:
        wait_until(all_answer(answers, "old"), "answers")
        before = server.worker_pids(model)
        if how == "no-archive":
            temporary = archive.with_name(f".{archive.name}")
            temporary.write_bytes(b"no archive at all")
            temporary.replace(archive)
        else:
            put(archive, "broken", load={"raises": "raise ValueError('typing error')", "dies": "os._exit(7)"}[how])
        wait_until(lambda: events(server, model, "replacement_failed"), "an event that says so")
        (reason,) = reasons(server, model, "replacement_failed")
        said = {"raises": "typing error", "dies": "exit code 7", "no-archive": archive.name}
        assert said[how] in reason
        assert f"replacement_failed {model}" in server.log.read_text()
        assert server.describe(model)["status"] == "READY"
        wait_until(lambda: server.worker_pids(model) == before, "the end of the worker that tried it")
        put(archive, "mended")
        wait_until(all_answer(answers, "mended"), "answers of the mended archive")
    assert [changes(mine) for mine in answers()] == [[("old", "mended")]] * _CALLERS
    # It was tried once; but one that has just died may have been killed by anything.
    assert how == "dies" or len(events(server, model, "replacement_failed")) == 1


def test_the_same_content_copied_again_replaces_nothing(server: Server, store: Path) -> None:
    put(store / "copied.tar.gz", "old")
    put(store / "witness.tar.gz", "old")
    assert (ask(server, "copied").text, ask(server, "witness").text) == ("old", "old")
    before = server.worker_pids("copied")
    copy = store / ".copy"
    copy.write_bytes((store / "copied.tar.gz").read_bytes())
    copy.replace(store / "copied.tar.gz")
    # What happened to the one before the second of these is done with by then.
    for version in ("new", "newer"):
        put(store / "witness.tar.gz", version)
        wait_until(answering(server, "witness", version), "another one to be replaced")
    assert server.worker_pids("copied") == before
    assert [event["kind"] for event in events(server, "copied")] == ["worker_started"]
    # It goes on being looked at.
    put(store / "copied.tar.gz", "new")
    wait_until(answering(server, "copied", "new"), "its own replacement")


def test_all_workers_of_a_model_are_replaced_and_nobody_fails(server: Server, store: Path) -> None:
    put(store / "several.tar.gz", "old", properties="minWorkers=3\n")
    assert ask(server, "several").text == "old"
    wait_until(lambda: server.describe("several")["requestInQueue"] == 0 and ready(server, "several") == 3, "three")
    before = set(server.worker_pids("several"))
    with asked_all_the_time(server, "several") as answers:
        wait_until(all_answer(answers, "old"), "answers")
        put(store / "several.tar.gz", "new", properties="minWorkers=3\n")
        wait_until(lambda: not before & set(server.worker_pids("several")), "the end of all old workers")
        wait_until(all_answer(answers, "new"), "answers of the newer archive")
    wait_until(lambda: len(server.worker_pids("several")) == 3, "three new workers, and no other")
    assert reasons(server, "several", "worker_stopped") == ["new_version"] * 3
    assert len(events(server, "several", "worker_started")) == 6
    assert not any(psutil.pid_exists(pid) for pid in before)


def test_newer_files_whose_worker_was_killed_are_tried_again(server: Server, store: Path, tmp_path: Path) -> None:
    """By an operator, or by a kernel that is short of memory."""
    loading = tmp_path / "loading"
    put(store / "killed.tar.gz", "old")
    assert ask(server, "killed").text == "old"
    (old,) = server.worker_pids("killed")
    # The first of them is there to be killed.
    waiting = f"first = not os.path.exists({str(loading)!r})\n{counting(loading)}\nwhile first: time.sleep(0.01)"
    put(store / "killed.tar.gz", "new", load=waiting)
    wait_until(loading.exists, "a worker that loads the newer archive")
    (trial,) = set(server.worker_pids("killed")) - {old}
    os.kill(trial, signal.SIGKILL)
    wait_until(answering(server, "killed", "new"), "the newer archive to be tried again")
    (reason,) = reasons(server, "killed", "replacement_failed")
    assert "SIGKILL" in reason
    assert "tried again" in reason
    assert count(loading) == 2


def test_all_are_replaced_though_one_of_the_new_workers_fails_once(server: Server, store: Path, tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    put(store / "halfway.tar.gz", "old", properties="minWorkers=3\n")
    assert ask(server, "halfway").text == "old"
    wait_until(lambda: ready(server, "halfway") == 3, "three workers")
    failing = f"{counting(loaded)}\nif len(open({str(loaded)!r}).readlines()) == 2: raise OSError('once')"
    put(store / "halfway.tar.gz", "new", load=failing, properties="minWorkers=3\n")
    wait_until(lambda: reasons(server, "halfway", "worker_stopped").count("new_version") == 3, "the end of the old")
    wait_until(lambda: ready(server, "halfway") == 3, "three new workers")
    assert "load_failed" in reasons(server, "halfway", "worker_stopped")
    assert count(loaded) == 4


def test_a_sleeping_model_wakes_with_the_newer_archive(server: Server, store: Path) -> None:
    put(store / "asleep.tar.gz", "old")
    assert ask(server, "asleep").text == "old"
    assert scale(server, "asleep", min_worker=0).status_code == 200
    assert server.describe("asleep")["status"] == "SLEEPING"
    put(store / "asleep.tar.gz", "new")
    assert ask(server, "asleep").text == "new"


def test_what_an_old_worker_is_at_is_finished(server: Server, store: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    directory = gate.write_model(tmp_path / "content")
    files = {"model.py": (directory / "model.py").read_text()}
    models.write_archive(store / "held.tar.gz", files=files)
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(ask, server, "held", "held")
        gate.wait_for("held")
        (old,) = server.worker_pids("held")
        put(store / "held.tar.gz", "new")
        wait_until(lambda: events(server, "held", "model_replaced"), "the newer archive to take over")
        assert ask(server, "held").text == "new"
        assert old in server.worker_pids("held")
        assert not held.done()
        gate.let("held")
        assert held.result().text == "held"
    wait_until(lambda: old not in server.worker_pids("held"), "the end of the old worker")


def test_the_settings_of_a_newer_archive_hold_from_then_on(server: Server, store: Path) -> None:
    put(store / "settings.tar.gz", "old")
    assert ask(server, "settings").text == "old"
    put(store / "settings.tar.gz", "new", properties="minWorkers=2\njob_queue_size=7\n")
    wait_until(lambda: events(server, "settings", "model_replaced"), "the newer archive to take over")
    described = server.describe("settings")
    assert (described["minWorkers"], described["queueSize"]) == (2, 7)
    wait_until(lambda: ready(server, "settings") == 2, "as many workers as the newer one asks for")
    assert described["settingsFrom"]["queueSize"] == "serving.properties"
    wait_until(answering(server, "settings", "new"), "the end of the old worker")


def test_newer_files_in_a_directory_take_over_too(server: Server, store: Path) -> None:
    directory = write_coded(store / "directory", "return Output().add('old')")
    assert ask(server, "directory").text == "old"
    newer = directory / ".model.py"
    newer.write_text(code("return Output().add('new')"))
    os.replace(newer, directory / "model.py")
    wait_until(answering(server, "directory", "new"), "the newer file to be noticed")


@pytest.mark.parametrize("name", ["meanwhile-1", "meanwhile-2", "meanwhile-3"])
def test_the_newer_one_takes_over_though_another_has_been_started_meanwhile(
    server: Server, store: Path, tmp_path: Path, threads: ThreadPoolExecutor, name: str
) -> None:
    """The old worker has died while the newer archive was tried, and a request did not wait for that."""
    gates = tmp_path / "gates"
    gates.mkdir()

    def loading() -> list[Path]:
        return list(gates.iterdir())

    put(store / f"{name}.tar.gz", "old", properties="maxWorkers=1\n")
    assert ask(server, name).text == "old"
    mine = f"{str(gates)!r} + '/' + str(os.getpid())"
    gated = f"open({mine}, 'w').close()\nwhile os.path.exists({mine}): time.sleep(0.002)"
    put(store / f"{name}.tar.gz", "new", load=gated, properties="maxWorkers=1\n")
    (trial,) = wait_until(loading, "a worker that loads the newer archive")
    (old,) = [pid for pid in server.worker_pids(name) if str(pid) != trial.name]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: len(events(server, name, "worker_died")) == 1, "its end")
    asked = threads.submit(ask, server, name)
    wait_until(lambda: len(loading()) == 2, "another worker that loads")
    trial.unlink()
    wait_until(lambda: events(server, name, "model_replaced"), "the newer archive to take over")
    for other in loading():
        other.unlink()
    assert asked.result().text == "new"
    assert len(events(server, name, "worker_died")) == 1
    wait_until(lambda: len(server.worker_pids(name)) == 1, "one worker, as many as there may be")
