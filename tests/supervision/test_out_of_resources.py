"""A front that runs out of descriptors says so, loses none, and goes on when there are some again."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

# Seconds within which a request has to be told; the deadline of requests is far beyond it.
_IN_TIME = 5.0
# What is open for a moment only is not seen so many times in a row.
_LOOKS = 50

_CODE = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add("served")
"""


def write_coded(store: Path, number: int) -> list[str]:
    names = [f"model-{index}" for index in range(number)]
    for name in names:
        models.write_model(store / name, files={"model.py": _CODE})
    return names


def ask(server: Server, name: str) -> int:
    """The status of the answer, which has to come in time."""
    before = time.monotonic()
    response = server.predict(name, [])
    assert time.monotonic() - before < _IN_TIME
    return response.status_code


@contextmanager
def room_for(server: Server, free: int) -> Iterator[None]:
    """The front can open no more than so many descriptors."""
    pid = server.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Those that stay: it has others for a moment, when it looks at what its workers hold.
    used = set.intersection(*({int(name) for name in os.listdir(f"/proc/{pid}/fd")} for _ in range(_LOOKS)))
    # The limit is one of their numbers, among which there may be gaps.
    unused = (number for number in count() if number not in used)
    limit = [next(unused) for _ in range(free + 1)][-1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def connected(server: Server) -> int:
    """Descriptors of the front while there is a connection of each client, which stays."""
    server.template_pid()
    assert server.client.get("/ping").status_code == 200
    return server.descriptors()


def test_models_for_which_there_is_no_descriptor_are_told_at_once(serve: Callable[..., Server], store: Path) -> None:
    names = write_coded(store, 16)
    server = serve(model_store=store, preload=LIGHT)
    before = connected(server)
    with room_for(server, 20):
        first = {name: ask(server, name) for name in names[:-1]}
        assert first[names[0]] == 200
        assert set(first.values()) <= {200, 424, 500, 503}
        refused = [name for name, status in first.items() if status != 200]
        assert refused
        # Those that it has go on.
        assert ask(server, names[0]) == 200
    assert ask(server, names[-1]) == 200
    wait_until(lambda: all(ask(server, name) == 200 for name in refused), "the end of the back-off")
    for name in names:
        assert server.management.delete(f"/models/{name}").status_code == 200
    wait_until(lambda: server.descriptors() <= before, "no descriptor left open")


def test_no_descriptor_is_lost_whichever_is_the_first_that_there_is_none_for(
    serve: Callable[..., Server], store: Path
) -> None:
    names = write_coded(store, 20)
    server = serve(model_store=store, preload=LIGHT)
    before = connected(server)
    for room, name in enumerate(names):
        with room_for(server, room):
            status = ask(server, name)
        if status == 200:
            break
        wait_until(lambda: server.descriptors() <= before, f"no descriptor left open of {room}")
    else:
        raise AssertionError("no model is served")
    assert room >= 4, "descriptors of one worker"
    assert server.management.delete(f"/models/{name}").status_code == 200
    wait_until(lambda: server.descriptors() <= before, "no descriptor left open")


def test_workers_that_the_front_has_no_descriptor_for_end_and_their_requests_are_told(
    serve: Callable[..., Server], store: Path
) -> None:
    """The template has forked them when the front finds out."""
    names = write_coded(store, 5)
    server = serve(model_store=store, preload=LIGHT)
    template = server.template_pid()
    with ThreadPoolExecutor(4) as threads, httpx.Client(base_url=server.url, trust_env=False) as last:
        os.kill(template, signal.SIGSTOP)
        asked = [threads.submit(server.predict, name, []) for name in names[:4]]
        wait_until(
            lambda: all(
                [worker["status"] for worker in server.describe(name)["workers"]] == ["LOADING"] for name in names[:4]
            ),
            "four workers asked for",
        )
        assert last.get("/ping").status_code == 200
        with room_for(server, 0):
            before = time.monotonic()
            os.kill(template, signal.SIGCONT)
            responses = [done.result() for done in asked]
            assert time.monotonic() - before < _IN_TIME
        # What the first one gives back is enough for others.
        refused = [name for name, response in zip(names[:4], responses, strict=True) if response.status_code != 200]
        assert refused
        for response in responses:
            assert response.status_code == 200 or (
                response.status_code == 424 and "no descriptor" in response.json()["message"]
            )
        workers = {pid for name in names[:4] for pid in server.worker_pids(name)}
        known = {server.process.pid, template, *workers}
        wait_until(lambda: set(server.processes()) == known, "the end of the workers that nobody knows")
        assert last.post(f"/predictions/{names[4]}", json=[]).status_code == 200
    wait_until(lambda: all(ask(server, name) == 200 for name in refused), "the end of the back-off")
    assert server.template_pid() == template
    assert "Traceback" not in server.log.read_text()


def test_more_workers_than_any_host_has_room_for_are_refused(serve: Callable[..., Server], store: Path) -> None:
    (name,) = write_coded(store, 1)
    server = serve(model_store=store, preload=LIGHT)
    refused = server.management.put(f"/models/{name}", params={"min_worker": 20_000})
    assert (refused.status_code, refused.json()["type"]) == (400, "BadRequestException")
    assert "20000" in refused.json()["message"]
    assert server.describe(name)["minWorkers"] == 0
    assert server.management.get("/status").json()["workersStarted"] == 0
