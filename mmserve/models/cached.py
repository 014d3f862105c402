"""What lies in the cache of unpacked archives: how large it is, when it was used last, and what goes if it is too much.

A content was used when its directory was last modified: that survives restarts, and servers that share a cache see it
of each other. Everything here but `has` blocks, and is called in threads.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmserve.errors import DiskFull
from mmserve.models.unpack import NAME_LENGTH, set_aside

logger = logging.getLogger("mmserve.models")

# Of what is free and what the cache holds; the rest is for the disk's other users.
_SHARE = 0.8
# Seconds between two notes that a content is in use.
_NOTED_EVERY = 60.0
# What another server has used within so many seconds is in use there.
_LEASE = 3 * _NOTED_EVERY
# Seconds by which a file system may round a time.
_ROUNDED = 2.0
# Bytes of a block as stat counts them, whatever the file system's are.
_BLOCK = 512

# What a content's directory is called: the beginning of its archive's digest.
_NAME = re.compile(rf"[0-9a-f]{{{NAME_LENGTH}}}")


class Tidied(NamedTuple):
    """What was removed, and what there is now and may be, in bytes."""

    contents: int
    freed: int
    size: int
    bound: int


@dataclass(slots=True)
class _Content:
    # In bytes, once it was looked at.
    size: int | None = None
    # Monotonic: when a thread asked for it.
    asked_at: float = 0.0
    # When this server said last that it is used.
    noted_at: float = 0.0


class CachedContents:
    """One object serves all threads. `bound` in bytes; without one it follows what is free."""

    def __init__(self, cache: Path, bound: int | None = None) -> None:
        self._cache = cache
        self._bound = bound
        # The least recently used is first.
        self._contents: OrderedDict[str, _Content] = OrderedDict()
        self._lock = threading.Lock()  # Held for a rename at most.
        self.size = 0
        # Counts what was added.
        self.added = 0

    def ask(self, name: str) -> None:
        """Somebody is about to look for it: from now on it does not go before they have said that they use it."""
        with self._lock:
            self._contents.setdefault(name, _Content()).asked_at = time.monotonic()
        self._note(name)

    def has(self, name: str) -> bool:
        """Whether it is there, as far as this server knows. Does not block."""
        content = self._contents.get(name)
        return content is not None and content.size is not None

    def add(self, name: str) -> None:
        """It is there, and may be new."""
        with self._lock:
            content = self._contents.get(name)
            if content is not None and content.size is not None:
                return
        self._set_size(name, size_on_disk(self._cache / name))
        self._note(name)
        self.added += 1

    def look(self, since: float) -> None:
        """Finds what an earlier server has left and other servers have added, and misses what others have removed.

        What was asked for `since` then (monotonic) may not be there yet.
        """
        found: dict[str, float] = {}
        # All of it may have been removed; what is unpacked next makes it anew.
        self._cache.mkdir(parents=True, exist_ok=True)
        with os.scandir(self._cache) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    # Another server may have removed it meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name] = entry.stat().st_mtime
        with self._lock:
            known = set(self._contents)
            for name in known - found.keys():
                if self._contents[name].asked_at < since:
                    self.size -= self._contents.pop(name).size or 0
        # All of this was used before the first that this server has used, or it would be known.
        for name in sorted(found.keys() - known, key=found.__getitem__, reverse=True):
            self._set_size(name, size_on_disk(self._cache / name), oldest=True)

    def tidy(self, in_use: Iterable[Path], since: float, *, halve: bool = False) -> Tidied:
        """Removes what was not used for longest until the rest keeps to the bound; with `halve`, to half of what it is.

        Never what is `in_use`, nor what was asked for `since` then (monotonic), nor what another server uses.
        """
        used = {name for path in in_use if (name := self._name_in(path)) is not None}
        due = time.time() - _NOTED_EVERY
        for name in used:
            content = self._contents.get(name)
            if content is not None and content.noted_at < due:
                self._note(name)
        bound = self.size // 2 if halve else self._limit()
        contents, before = 0, self.size
        for name in list(self._contents):
            if self.size <= bound:
                break
            if name not in used and self._remove(name, since):
                contents += 1
        return Tidied(contents, before - self.size, self.size, bound)

    def _limit(self) -> int:
        if self._bound is not None:
            return self._bound
        system = os.statvfs(self._cache)
        return int(_SHARE * (self.size + system.f_bavail * system.f_frsize))

    def _name_in(self, path: Path) -> str | None:
        """Of the content that a path lies in, if it is of this cache: an archive may hold one directory with it all."""
        try:
            return path.relative_to(self._cache).parts[0]
        except (ValueError, IndexError):
            return None

    def _note(self, name: str) -> None:
        """It is used now."""
        now = time.time()
        try:
            os.utime(self._cache / name, (now, now))
        except OSError:
            # Not there yet, or another user's, who says when it is used.
            return
        with self._lock:
            content = self._contents.get(name)
            if content is not None:
                content.noted_at = now
                self._contents.move_to_end(name)

    def _set_size(self, name: str, size: int, *, oldest: bool = False) -> None:
        with self._lock:
            known = name in self._contents
            content = self._contents.setdefault(name, _Content())
            self.size += size - (content.size or 0)
            content.size = size
            if oldest and not known:
                self._contents.move_to_end(name, last=False)

    def _remove(self, name: str, since: float) -> bool:
        directory = self._cache / name
        with self._lock:
            content = self._contents.get(name)
            if content is None or content.asked_at >= since or _is_anothers(directory, content.noted_at):
                return False
            del self._contents[name]
            self.size -= content.size or 0
            try:
                aside = set_aside(directory)
            except FileNotFoundError:
                return False
            except OSError as error:
                logger.warning("%s cannot be removed to make room, and is not counted: %s", directory, error.strerror)
                return False
        shutil.rmtree(aside, ignore_errors=True)
        if aside.exists():
            logger.warning("%s could not be removed; that is tried again at the next start", aside)
        return True


@contextlib.contextmanager
def disk_full_named(directory: Path) -> Iterator[None]:
    """Raises DiskFull with this directory where the system says that there is no space."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(str(directory)) from error
        raise


def _is_anothers(directory: Path, noted_at: float) -> bool:
    """Another server has used it of late, or this one before it was started anew."""
    try:
        used_at = directory.stat().st_mtime
    except OSError:
        return False
    return used_at > noted_at + _ROUNDED and used_at > time.time() - _LEASE


def size_on_disk(directory: Path) -> int:
    """Bytes that it takes on the disk; fewer if somebody removes it meanwhile."""
    blocks = 0
    for parent, _, files in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in files)):
            try:
                blocks += os.lstat(path).st_blocks
            except OSError:
                continue
    return blocks * _BLOCK
