"""The environments that this host has on its disk: each whole or not there, however many servers share the directory.

    KEY/             one environment; who uses it holds a shared lock on KEY/.lock
    .tmp-...         one that is being made or removed
    worker-...       where other interpreters find the worker's side of mmserve, and nothing else

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from mmserve.models.cached import size_on_disk
from mmserve.models.temporary import Temporary, free_name, is_at, remove_leftovers
from mmserve_worker import control

_KEY = re.compile(r"[0-9a-f]{32}")
# In it stand the bytes of the environment: to count them is to look at ten thousand files.
_LOCK = ".lock"
# Of what is free and what environments hold. Their disk is that of the unpacked archives, to which most is left.
_SHARE = 0.1
# What is read of a number of bytes, at most.
_DIGITS = 20


class Held:
    """An environment that nobody removes until it is let go."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self._lock = lock

    def let_go(self) -> None:
        # The least recently used is the one that was let go first.
        _note_use(self._lock)
        os.close(self._lock)


class EnvironmentStore:
    """Keeps those last used, in so many bytes; more where more are in use. Without `size` it follows what is free."""

    def __init__(self, directory: Path, size: int | None = None) -> None:
        self._size = size
        # Absolute, since others are told of it: workers have working directories of their own.
        self._directory = Path(os.path.abspath(directory))
        if self._directory.is_dir():
            remove_leftovers(self._directory)

    @property
    def downloads(self) -> Path:
        return self._directory / "downloads"

    def temporary(self) -> Temporary:
        """A directory in which an environment can be made."""
        return Temporary(self._directory)

    def open(self, key: str) -> Held | None:
        """The environment, if it is there."""
        directory = self._directory / key
        try:
            lock = os.open(directory / _LOCK, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not is_at(lock, directory / _LOCK):
            # It was removed in this moment.
            os.close(lock)
            return None
        _note_use(lock)
        return Held(directory, lock)

    def adopt(self, temporary: Path, key: str) -> Held:
        """Takes over what was made."""
        lock = os.open(temporary / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.pwrite(lock, str(size_on_disk(temporary)).encode(), 0)
            temporary.rename(self._directory / key)
        except OSError:
            os.close(lock)
            # Most likely another server was faster, with the same requirements.
            held = self.open(key)
            if held is None:
                raise
            return held
        return Held(self._directory / key, lock)

    def evict(self) -> list[str]:
        """Removes the least recently used of those that are too many, and says which."""
        found = [entry for entry in self._directory.iterdir() if _KEY.fullmatch(entry.name)]
        found.sort(key=_last_use)
        sizes = {entry: _size_of(entry) for entry in found}
        held = sum(sizes.values())
        bound = self._bound(held)
        removed: list[str] = []
        for entry, size in sizes.items():
            if held <= bound:
                break
            if self._remove(entry):
                held -= size
                removed.append(entry.name)
        return removed

    def worker_path(self) -> Path:
        """Where another interpreter finds the worker's side, wherever that is installed or lies."""
        package = os.path.dirname(os.path.abspath(control.__file__))
        directory = self._directory / f"worker-{hashlib.sha256(package.encode()).hexdigest()[:16]}"
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(package, directory / os.path.basename(package))
        return directory

    def _bound(self, held: int) -> int:
        if self._size is not None:
            return self._size
        system = os.statvfs(self._directory)
        return int(_SHARE * (system.f_bavail * system.f_frsize + held))

    def _remove(self, directory: Path) -> bool:
        """In two steps, so that nobody finds half of it. Says whether it did: not what is in use."""
        try:
            lock = os.open(directory / _LOCK, os.O_RDWR)
        except OSError:
            # Another server is at it.
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_at(lock, directory / _LOCK):
                return False
            temporary = free_name(self._directory)
            directory.rename(temporary)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)
        return True


def _note_use(lock: int) -> None:
    # In nanoseconds: the kernel's own idea of now is that of its last tick.
    now = time.time_ns()
    os.utime(lock, ns=(now, now))


def _last_use(directory: Path) -> int:
    try:
        return (directory / _LOCK).stat().st_mtime_ns
    except OSError:
        return 0


def _size_of(directory: Path) -> int:
    try:
        said = (directory / _LOCK).read_bytes()[:_DIGITS]
    except OSError:
        # Another server is removing it.
        return 0
    return int(said) if said.isdigit() else size_on_disk(directory)
