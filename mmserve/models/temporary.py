"""Directories of a cache that are being filled: complete by another name afterwards, or gone.

Whoever fills one holds a lock on it, which ends with its process. Not told by process ids, since servers in several
containers may share a cache, and each container has its own: half of what one of them unpacks would be removed by the
next to start, and the other half become the model.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from mmserve.errors import CacheUnwritable

_NAME = re.compile(r"\.tmp-[0-9a-f-]+")


class Temporary:
    """A new directory, until it is given up. Its content is gone then, unless it got another name."""

    def __init__(self, cache: Path) -> None:
        while True:
            self.directory = free_name(cache)
            _make(self.directory)
            # A server that starts may find it before it is locked.
            with contextlib.suppress(FileNotFoundError):
                self._lock = _locked(self.directory, fcntl.LOCK_SH)
                if is_at(self._lock, self.directory):
                    return
                os.close(self._lock)

    def give_up(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)


@contextlib.contextmanager
def temporary_directory(cache: Path) -> Iterator[Path]:
    """A directory that is gone afterwards, whatever happens, unless it got another name by then."""
    temporary = Temporary(cache)
    try:
        yield temporary.directory
    finally:
        temporary.give_up()


def free_name(cache: Path) -> Path:
    return cache / f".tmp-{secrets.token_hex(12)}"


def remove_leftovers(cache: Path) -> None:
    """Removes what processes left that were killed, whose locks have ended with them."""
    for entry in cache.iterdir():
        if not _NAME.fullmatch(entry.name):
            continue
        try:
            lock = _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Somebody is at it, or it is gone.
            continue
        # Two servers that start at once may both be at it; what the one has removed is no error to the other.
        shutil.rmtree(entry, ignore_errors=True)
        os.close(lock)


def is_at(lock: int, path: Path) -> bool:
    """Whether what is open is still there by that name."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _make(directory: Path) -> None:
    """In a cache that somebody may have removed as a whole, to be rid of what is old."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise CacheUnwritable(str(directory.parent), str(error.strerror)) from error
        raise


def _locked(directory: Path, how: int) -> int:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, how)
    except OSError:
        os.close(lock)
        raise
    return lock
