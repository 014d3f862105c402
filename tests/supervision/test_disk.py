"""A small disk: what sleeps gives way to what is asked for, what runs does not, and nobody is the worse for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mmserve.server
from mmserve.config import Settings
from mmserve.errors import StartError
from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, code, events, put, reasons

# Bytes of a model's content, most of it ballast.
_SIZE = 400_000
_ASLEEP = "max_idle_time=0"
# Answers from its files, as they are when it is asked.
_READ = "return Output().add(open('ballast').read()[:7])"


def put_large(archive: Path, properties: str = "") -> None:
    name = archive.name.partition(".")[0]
    files = {"model.py": code(_READ), "serving.properties": properties, "ballast": name.ljust(_SIZE)}
    models.write_archive(archive, files=files)


def directories(server: Server) -> list[Path]:
    return [path for path in Path(server.settings["cache_dir"]).iterdir() if not path.name.startswith(".")]


def sleeps(server: Server, model: str) -> bool:
    return bool(server.describe(model)["status"] == "SLEEPING")


def ask_and_let_sleep(server: Server, *names: str) -> None:
    assert [ask(server, name).text.strip() for name in names] == list(names)
    wait_until(lambda: all(sleeps(server, name) for name in names), f"{names} to sleep")


def test_a_sleeping_model_whose_content_has_gone_gets_it_again(serve: Callable[..., Server], store: Path) -> None:
    names = [f"model-{number}" for number in range(6)]
    for name in names:
        put_large(store / f"{name}.tar.gz", _ASLEEP)
    server = serve(model_store=store, preload=LIGHT, cache_size=3 * _SIZE)
    for _ in range(2):
        ask_and_let_sleep(server, *names)
        wait_until(lambda: len(directories(server)) == 2, "what is too much to go")

    def gone() -> int:
        return sum(event["contents"] for event in events(server, "", "cache_evicted"))

    # Told when they have been removed.
    wait_until(lambda: gone() >= 8, "to be told of all that have gone")
    assert not events(server, "", "model_failed")


def test_what_runs_keeps_its_files_and_the_excess_is_told_once(serve: Callable[..., Server], store: Path) -> None:
    names = [f"model-{number}" for number in range(5)]
    for name in names:
        put_large(store / f"{name}.tar.gz")
    server = serve(model_store=store, preload=LIGHT, cache_size=2 * _SIZE)
    for _ in range(2):
        assert [ask(server, name).text.strip() for name in names] == names
    wait_until(lambda: events(server, "", "cache_exceeded"), "word of it")
    assert len(directories(server)) == 5
    assert len(events(server, "", "cache_exceeded")) == 1


def test_many_at_once_with_room_for_hardly_any_all_answer(
    serve: Callable[..., Server], store: Path, threads: ThreadPoolExecutor
) -> None:
    """Between an archive's content and the worker that is started with it there is no gap."""
    names = [f"model-{number:02}" for number in range(20)]
    for name in names:
        put(store / f"{name}.tar.gz", name, load="open('serving.properties').read()", properties=_ASLEEP)
    server = serve(model_store=store, preload=LIGHT, cache_size=1)
    answers = list(threads.map(lambda name: ask(server, name).text, names * 5))
    assert answers == names * 5
    wait_until(lambda: not directories(server), "all content to go")


def test_what_an_earlier_server_has_left_is_bounded_from_the_start(serve: Callable[..., Server], store: Path) -> None:
    for name in ("first", "second", "third"):
        put_large(store / f"{name}.tar.gz", _ASLEEP)
    server = serve(model_store=store, preload=LIGHT)
    ask_and_let_sleep(server, "first", "second", "third")
    left = sorted(directories(server), key=lambda path: path.stat().st_mtime)
    assert server.stop() == 0
    for number, directory in enumerate(left):
        os.utime(directory, (number, number))
    server = serve(model_store=store, preload=LIGHT, cache_size=2 * _SIZE)
    wait_until(lambda: len(directories(server)) == 1, "what is too much to go")
    assert directories(server) == left[-1:]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "mmserve-test", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_on_a_full_disk_what_sleeps_makes_room(serve: Callable[..., Server], store: Path, small_disk: Path) -> None:
    names = ["model-0", "model-1", "model-2", "model-3"]
    for name in names:
        put_large(store / f"{name}.tar.gz", _ASLEEP)
    server = serve(model_store=store, preload=LIGHT, cache_dir=small_disk, cache_size=1 << 30)
    for pair in (names[:2], names[2:], names[:2]):
        ask_and_let_sleep(server, *pair)
    assert set(reasons(server, "", "cache_evicted")) == {"the disk is full"}
    assert not events(server, "", "model_failed")


def test_on_a_disk_that_is_full_of_what_runs_the_next_is_told_so(
    serve: Callable[..., Server], store: Path, small_disk: Path
) -> None:
    names = ["model-0", "model-1", "model-2"]
    for name in names:
        put_large(store / f"{name}.tar.gz")
    server = serve(model_store=store, preload=LIGHT, cache_dir=small_disk, cache_size=1 << 30)
    assert [ask(server, name).text.strip() for name in names[:2]] == names[:2]
    refused = ask(server, names[2])
    assert refused.status_code == 507
    assert refused.json()["type"] == "DiskFullException"
    assert str(small_disk) in refused.json()["message"]
    assert len(list(small_disk.iterdir())) == 2
    assert [ask(server, name).text.strip() for name in names[:2]] == names[:2]


def test_a_cache_that_may_be_written_to_no_longer_is_what_is_blamed(
    serve: Callable[..., Server], store: Path, small_disk: Path
) -> None:
    for name in ("before", "after"):
        put_large(store / f"{name}.tar.gz")
    server = serve(model_store=store, preload=LIGHT, cache_dir=small_disk)
    assert ask(server, "before").text.strip() == "before"
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = ask(server, "after")
    assert refused.status_code == 507
    assert f"cache_dir {small_disk} cannot be written to: Read-only file system" in refused.json()["message"]
    assert ask(server, "before").text.strip() == "before"
    assert server.stop() == 0
    with pytest.raises(StartError, match=f"cache_dir {small_disk}: it cannot be written to"):
        mmserve.server.Server(Settings(cache_dir=str(small_disk)))
