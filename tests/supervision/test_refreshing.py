"""A model that is refreshed by several callers at one time: they take turns, and what runs goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, count, counting, events, put

_CALLERS = 4
# Seconds between two looks of the server's own, of which there are none here.
_RARELY = 600.0


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT, store_check_interval=_RARELY)


def test_broken_files_that_are_refreshed_by_several_fail_for_all_of_them_and_for_nobody_else(
    server: Server, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    archive = Path(server.settings["model_store"], "m.tar.gz")
    put(archive, "old")
    assert ask(server, "m").text == "old"
    loading, opened = tmp_path / "loading", tmp_path / "opened"
    wait = f"while not os.path.exists({str(opened)!r}): time.sleep(0.002)"
    put(archive, "new", load=f"{counting(loading)}\n{wait}\nraise ValueError('no good')")
    refreshing = [threads.submit(server.management.post, "/models/m/refresh") for _ in range(_CALLERS)]
    wait_until(loading.exists, "the first trial")
    assert ask(server, "m").text == "old"
    opened.touch()
    for answer in (call.result() for call in refreshing):
        assert answer.status_code == 424, answer.text
        assert "no good" in answer.json()["message"]
    assert count(loading) == len(events(server, "m", "replacement_failed")) == _CALLERS
    assert events(server, "m", "model_failed") == []
    assert (ask(server, "m").text, server.describe("m")["status"]) == ("old", "READY")


def test_newer_files_that_are_refreshed_by_several_are_taken_over_once(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    archive = Path(server.settings["model_store"], "n.tar.gz")
    put(archive, "old")
    assert ask(server, "n").text == "old"
    put(archive, "new")
    refreshing = [threads.submit(server.management.post, "/models/n/refresh") for _ in range(_CALLERS)]
    newer = [call.result().json()["newer"] for call in refreshing]
    assert sorted(newer) == [False] * (_CALLERS - 1) + [True]
    assert len(events(server, "n", "model_replaced")) == 1
    assert ask(server, "n").text == "new"
