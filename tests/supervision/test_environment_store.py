"""Environments on the disk: whole or not there, the least recently used go, and none that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from mmserve.supervision.environment_store import EnvironmentStore, Held
from tests.supervision.environments import fill, room_for

KEYS = [f"{number:032x}" for number in range(5)]


def make(store: EnvironmentStore, key: str, content: str = "made") -> Held:
    temporary = store.temporary()
    try:
        (temporary.directory / "content").write_text(content)
        fill(temporary.directory)
        return store.adopt(temporary.directory, key)
    finally:
        temporary.give_up()


def keys(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_an_environment_is_there_for_the_next_server(tmp_path: Path) -> None:
    assert EnvironmentStore(tmp_path).open(KEYS[0]) is None
    make(EnvironmentStore(tmp_path), KEYS[0]).let_go()
    held = EnvironmentStore(tmp_path).open(KEYS[0])
    assert held is not None
    assert (held.directory / "content").read_text() == "made"
    held.let_go()


def test_of_two_servers_that_make_the_same_the_first_wins(tmp_path: Path) -> None:
    first = make(EnvironmentStore(tmp_path), KEYS[0], "first")
    second = make(EnvironmentStore(tmp_path), KEYS[0], "second")
    assert first.directory == second.directory
    assert (second.directory / "content").read_text() == "first"
    first.let_go()
    second.let_go()


def test_the_least_recently_used_goes_and_none_in_use(tmp_path: Path) -> None:
    store, other = EnvironmentStore(tmp_path, room_for(2)), EnvironmentStore(tmp_path, room_for(2))
    held = [make(store, key) for key in KEYS]
    by_other = other.open(KEYS[1])
    assert by_other is not None
    for one in (held[4], held[1], held[2], held[3]):
        one.let_go()
    assert store.evict() == [KEYS[4], KEYS[2], KEYS[3]]
    assert keys(tmp_path) == KEYS[:2]
    make(store, KEYS[2]).let_go()
    assert store.evict() == [KEYS[2]]
    by_other.let_go()
    held[0].let_go()
    assert store.evict() == []


def test_bytes_count_and_not_how_many_there_are(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path, room_for(3))
    for key in KEYS[:3]:
        make(store, key).let_go()
    assert store.evict() == []
    large = store.temporary()
    for part in ("a", "b"):
        (large.directory / part).mkdir()
        fill(large.directory / part)
    store.adopt(large.directory, KEYS[3]).let_go()
    large.give_up()
    assert store.evict() == KEYS[:2]
    # One that says nothing of its size, or nonsense, is looked at.
    (tmp_path / KEYS[3] / ".lock").write_text("many")
    make(store, KEYS[4]).let_go()
    assert len(store.evict()) == 1


def test_without_a_bound_a_part_of_the_disk_is_for_them(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path)
    make(store, KEYS[0]).let_go()
    assert store.evict() == []
    bound = psutil.disk_usage(str(tmp_path)).free // 10
    (tmp_path / KEYS[0] / ".lock").write_text(str(2 * bound))
    assert store.evict() == [KEYS[0]]


def test_what_a_killed_server_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123456789abcdef").mkdir()
    under_way = EnvironmentStore(tmp_path).temporary()
    EnvironmentStore(tmp_path)
    assert keys(tmp_path) == [under_way.directory.name]
    under_way.give_up()
    assert keys(tmp_path) == []


def test_other_interpreters_find_the_workers_side_and_nothing_else(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path)
    path = store.worker_path()
    assert store.worker_path() == path
    assert os.listdir(path) == ["mmserve_worker"]
    code = "import mmserve_worker.worker, importlib.util as u; print(u.find_spec('mmserve'))"
    variables = {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.check_output([sys.executable, "-S", "-P", "-c", code], env=variables, text=True)
    assert said == "None\n"
