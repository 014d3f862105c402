"""The run file says which server runs, and never one that does not."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from mmserve import runfile
from mmserve.errors import StartError
from mmserve.runfile import RunFile, Running, read

RUNNING = Running(pid=12, inference="http://a:1", management="http://a:2", store=None, models=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "server.json"


def test_it_is_read_while_the_server_holds_it(file: Path) -> None:
    assert read(file) is None
    held = RunFile(file)
    assert read(file) is None
    held.write(RUNNING)
    assert read(file) == RUNNING
    held.close()
    assert read(file) is None
    assert not file.exists()


def test_what_a_killed_server_left_is_never_read(file: Path) -> None:
    RunFile(file).close()
    left = Running(pid=999, inference="http://a:1", management="http://a:2", store="s" * 100, models=3)
    killed = RunFile(file)
    killed.write(left)
    content = file.read_bytes()
    killed.close()
    file.write_bytes(content)
    assert read(file) is None
    # Nor while the next server has not said yet where it is.
    held = RunFile(file)
    assert read(file) is None
    held.write(RUNNING)
    assert read(file) == RUNNING
    held.close()


def test_a_second_server_is_told_of_the_first(file: Path) -> None:
    held = RunFile(file)
    with pytest.raises(StartError, match="being started"):
        RunFile(file)
    held.write(RUNNING)
    with pytest.raises(StartError, match=r"already running .*\(process 12\)"):
        RunFile(file)
    assert read(file) == RUNNING
    held.close()


def test_a_command_that_looks_keeps_no_server_from_starting(file: Path) -> None:
    RunFile(file).close()
    with file.open("wb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        held: list[RunFile] = []
        starting = threading.Thread(target=lambda: held.append(RunFile(file)))
        starting.start()
        fcntl.flock(looking, fcntl.LOCK_UN)
        starting.join(10)
    held[0].close()


def test_a_server_that_starts_while_another_ends_holds_the_file_that_is_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = RunFile(file)
    flock = fcntl.flock

    def end_first(opened: int, operation: int) -> None:
        """The other one ends between the opening of its file and the lock on it."""
        monkeypatch.undo()
        ending.close()
        flock(opened, operation)

    monkeypatch.setattr(fcntl, "flock", end_first)
    held = RunFile(file)
    held.write(RUNNING)
    assert read(file) == RUNNING
    held.close()


def test_there_is_one_for_each_management_address(tmp_path: Path) -> None:
    addresses = ["http://127.0.0.1:8081", "http://127.0.0.1:8082", "http://localhost:8081", "http://[::1]:8081"]
    paths = {runfile.path(str(tmp_path), address) for address in addresses}
    assert len(paths) == len(addresses)
    assert all(path.parent == tmp_path for path in paths)
    assert runfile.path(str(tmp_path), "127.0.0.1:8081") == runfile.path(str(tmp_path), addresses[0])


def test_it_cannot_be_where_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match="you alone may write"):
        RunFile(tmp_path / "server.json")
