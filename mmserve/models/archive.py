"""Model archives: what they are called, and the directories of this host that hold their content.

An archive is unpacked once for its content, not for its name: a thousand models that are the same bytes share one
directory. Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from mmserve.models.cached import CachedContents, disk_full_named
from mmserve.models.destination import ArchiveError, UnpackLimits
from mmserve.models.temporary import remove_leftovers, temporary_directory
from mmserve.models.unpack import (
    Version,
    content_of,
    digest_of,
    directory_for,
    opened,
    unpack,
    unpack_version,
    version_of,
)
from mmserve.models.untar import MAX_HEADER

__all__ = [
    "NAME_RULE",
    "SUFFIXES",
    "ArchiveCache",
    "ArchiveError",
    "UnpackLimits",
    "Unpacked",
    "name_of",
    "unpack",
    "valid_name",
    "why_no_model",
    "without_suffix",
]

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip", ".mar")

# What compression may add to what cannot be compressed.
_UNCOMPRESSED = 1.01

# The name of a model becomes part of paths and URLs: the segments of a path, none of which can lead out of it. Keys
# of S3 have what stands here, `region=eu/shop 1.tar.gz` being one. No `%`, which files and URLs use for others, and
# nothing beyond ASCII, of which 200 fit into the name of a file.
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9 !$&'()*+,.:;=@_-]{0,199}(?<! )"
_NAME = re.compile(f"{_SEGMENT}(/{_SEGMENT})*")
# Characters; as long as a key of S3 may be.
_LONGEST_NAME = 1024
# The same for people.
NAME_RULE = (
    "names have letters a to z, digits, spaces and ! $ & ' ( ) * + , - . : ; = @ _, begin with a letter or digit, "
    "and have at most 200 characters between two slashes"
)


def name_of(path: Path | str) -> str | None:
    """`churn-acme` for `churn-acme.tar.gz`; None for what is no archive."""
    return without_suffix(os.path.basename(path))


def without_suffix(key: str) -> str | None:
    """`eu/churn-acme` for `eu/churn-acme.tar.gz`; None for what is no archive."""
    suffix = next((suffix for suffix in SUFFIXES if key.endswith(suffix)), None)
    return key.removesuffix(suffix) or None if suffix is not None else None


def why_no_model(name: str | None) -> str:
    """What is wrong with something in a model store that would have this name, or is no archive."""
    return NAME_RULE if name is not None else f"archives end in one of {', '.join(SUFFIXES)}"


def valid_name(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) is not None


class Unpacked(NamedTuple):
    """The directory with an archive's content, and the archive's SHA-256."""

    directory: Path
    digest: str


class ArchiveCache:
    """The unpacked archives of this host. One object serves all threads. `size` in bytes bounds what lies there."""

    def __init__(
        self,
        cache: Path,
        limits: UnpackLimits | None = None,
        remembered: int = 100_000,
        size: int | None = None,
    ) -> None:
        self._cache = cache
        self._limits = limits or UnpackLimits()
        self._remembered = remembered
        self._digests: OrderedDict[Version, str] = OrderedDict()
        self._under_way: dict[str, Future[Path]] = {}
        self._lock = threading.Lock()  # Never held while a file is read.
        cache.mkdir(parents=True, exist_ok=True)
        # Not by writing to it: from a disk that is full, what is there can be served.
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it cannot be written to", str(cache))
        remove_leftovers(cache)
        self.contents = CachedContents(cache, size)

    def unpacked(self, archive: Path) -> Unpacked:
        """As `unpack`, but what has not changed is not read again, and what is under way is not done twice."""
        with opened(archive) as file:
            version = version_of(archive, file)
            digest = self._digest(version, file)
            return Unpacked(self._unpacked_once(version, file, digest), digest)

    def unpacked_before(self, digest: str) -> Path | None:
        """The directory with the content of an archive that is not at hand any more, if it is still there."""
        target = directory_for(self._cache, digest)
        self.contents.ask(target.name)
        try:
            directory = content_of(target)
        except OSError:
            return None
        self.contents.add(target.name)
        return directory

    @property
    def largest(self) -> int:
        """Bytes of an archive, however little it is compressed: larger ones unpack to more than the limits allow."""
        return int(_UNCOMPRESSED * self._limits.max_bytes) + self._limits.max_files * MAX_HEADER

    def temporary_directory(self) -> AbstractContextManager[Path]:
        """Where an archive may lie until it is unpacked. It is gone afterwards, whatever happens."""
        return temporary_directory(self._cache)

    def _digest(self, version: Version, file: BufferedReader) -> str:
        with self._lock:
            known = self._digests.get(version)
            if known is not None:
                self._digests.move_to_end(version)
                return known
        digest = digest_of(file)
        with self._lock:
            self._digests[version] = digest
            if len(self._digests) > self._remembered:
                self._digests.popitem(last=False)
        return digest

    def _unpacked_once(self, version: Version, file: BufferedReader, digest: str) -> Path:
        """Whoever asks for what another thread is unpacking gets that thread's result, or its error."""
        mine: Future[Path] = Future()
        with self._lock:
            under_way = self._under_way.setdefault(digest, mine)
        if under_way is not mine:
            return under_way.result()
        try:
            target = directory_for(self._cache, digest)
            self.contents.ask(target.name)
            with disk_full_named(self._cache):
                directory = unpack_version(version, file, target, self._limits)
            self.contents.add(target.name)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(directory)
            return directory
        finally:
            with self._lock:
                del self._under_way[digest]
