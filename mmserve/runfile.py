"""The run file: how commands find a running server, and how a second one on the same address finds the first.

It is locked by the server for as long as it lives, so that a file left behind by a killed server says nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from pathlib import Path
from typing import IO

import msgspec

from mmserve.errors import StartError

# Commands that look at the file hold it for microseconds: a server tries so often, and waits so many seconds between.
_TRIES = 50
_PAUSE = 0.01


class Running(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    pid: int
    inference: str
    management: str
    store: str | None
    # None where nobody knows yet.
    models: int | None


def path(runtime_dir: str, management_address: str) -> Path:
    """One server for each management address."""
    return Path(runtime_dir, re.sub(r"[^A-Za-z0-9.]+", "-", management_address.removeprefix("http://")) + ".json")


class RunFile:
    """A server's hold on its run file."""

    def __init__(self, file: Path) -> None:
        make_directory(file.parent)
        self._file = file
        self._opened = _hold(file)
        # What a killed server has left in it must not be taken for this one's.
        self._opened.truncate(0)

    def write(self, running: Running) -> None:
        self._opened.write(msgspec.json.encode(running))
        self._opened.flush()

    def close(self) -> None:
        self._file.unlink(missing_ok=True)
        self._opened.close()


def _hold(file: Path) -> IO[bytes]:
    """The file, opened and locked."""
    for _ in range(_TRIES):
        try:
            opened = file.open("a+b")
        except OSError as error:
            raise StartError(f"{file}: {error.strerror}") from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.close()
            running = read(file)
            if running is not None:
                raise StartError(
                    f"mmserve is already running on that management address (process {running.pid})."
                ) from None
        else:
            if _is_at(file, opened):
                return opened
            # A server that ended has removed it since it was opened.
            opened.close()
        time.sleep(_PAUSE)
    raise StartError("mmserve is already being started on that management address.")


def _is_at(file: Path, opened: IO[bytes]) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(opened.fileno()))
    except FileNotFoundError:
        return False


def make_directory(directory: Path) -> None:
    """A directory for run files and logs. Raises StartError if there is one that others have a hand in."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"runtime_dir {directory}: {error.strerror}") from error
    _check_directory(directory)


def _check_directory(directory: Path) -> None:
    """Others must not be able to say which process is the server, or where its log goes."""
    status = directory.lstat()
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or shared:
        raise StartError(f"runtime_dir {directory}: is not a directory that is yours, and that you alone may write to.")


def read(file: Path) -> Running | None:
    """The server that holds this run file now, or None. Raises StartError if it may be somebody else's."""
    try:
        _check_directory(file.parent)
        with file.open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return msgspec.json.decode(opened.read(), type=Running)
    except (FileNotFoundError, NotADirectoryError, PermissionError, msgspec.DecodeError):
        pass
    return None
