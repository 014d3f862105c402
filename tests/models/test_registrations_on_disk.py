"""What becomes of what was registered in a crash, on a full disk and in directories that may not be used."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmserve.errors import StartError
from mmserve.models.registrations import Record, Registrations

KILLS = 40
# Of very different lengths, so that a mixture of the two is not mistaken for either.
OLD = Record("model", "/models/old.tar.gz", {"min_workers": 1})
NEW = Record("model", "/models/" + "new" * 10_000, {"min_workers": 2}, {"weight": 2.5, "pinned": True})


def save_until_killed(directory: Path) -> None:
    """Kills a process that saves, again and again, and says after each time what was left."""
    registrations = Registrations(directory)
    registrations.save(OLD)
    for _ in range(KILLS):
        child = os.fork()
        if not child:
            while True:
                registrations.save(NEW)
                registrations.save(OLD)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        torn = len(os.listdir(directory)) > 1
        loaded = Registrations(directory).load()
        found = "old" if loaded == [OLD] else "new" if loaded == [NEW] else "neither"
        print(found, "torn" if torn else "whole", *os.listdir(directory))


def test_a_crash_in_the_middle_of_a_save_leaves_the_old_state_or_the_new(directory: Path) -> None:
    # In a process of its own, which may fork: it has no threads.
    code = f"import {__name__} as tests; tests.save_until_killed(tests.Path({str(directory)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    found, torn, left = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert len(found) == KILLS
    assert set(found) <= {"old", "new"}
    assert set(left) == {"model.json"}
    # Or none was killed in the middle of anything.
    assert "torn" in torn


@contextmanager
def full_disk(left: int) -> Iterator[None]:
    """No file can become longer: what is beyond is not written, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1, 10_000])
def test_a_full_disk_leaves_the_old_state(registrations: Registrations, directory: Path, left: int) -> None:
    registrations.save(OLD)
    with full_disk(left), pytest.raises(OSError, match="File too large"):
        registrations.save(NEW)
    assert (os.listdir(directory), registrations.load()) == (["model.json"], [OLD])
    registrations.save(NEW)
    assert registrations.load() == [NEW]


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o300])
def test_a_directory_that_may_not_be_used_is_named_at_the_start(directory: Path, mode: int) -> None:
    directory.mkdir()
    opened = os.open(directory, os.O_RDONLY)
    user = os.geteuid()
    if user == 0:
        # To root nothing is forbidden: it becomes somebody else, whose the directory is.
        os.chown(directory, 65534, -1)
        os.seteuid(65534)
    try:
        # Not by its path: the directories above may be root's.
        os.fchmod(opened, mode)
        with pytest.raises(StartError, match=r"state_dir .*: may not be read and written"):
            Registrations(Path(f"/proc/self/fd/{opened}"))
    finally:
        os.seteuid(user)
        os.close(opened)


def test_a_directory_that_cannot_be_made_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, problem in (("file", "File exists"), ("file/state", "Not a directory")):
        with pytest.raises(StartError, match=f"state_dir {tmp_path / name}: {problem}"):
            Registrations(tmp_path / name)


def test_a_directory_that_has_gone_is_named(registrations: Registrations, directory: Path) -> None:
    directory.rmdir()
    with pytest.raises(StartError, match=f"state_dir {directory}: No such file or directory"):
        registrations.load()
