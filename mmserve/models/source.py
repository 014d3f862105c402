"""Where a model's files come from: a path of this host here, an object of S3 in s3_source.py."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from mmserve.models import properties, requirements
from mmserve.models.archive import ArchiveCache, name_of
from mmserve.models.cached import CachedContents
from mmserve_worker.handlers import contracts
from mmserve_worker.handlers.files import is_model

# What is loaded beside code and models.
_OTHER_FILES = (properties.FILE_NAME, requirements.FILE_NAME, Path(contracts.MANIFEST).name)
# What a manifest may name beside these. It alone makes no directory a model.
_CONFIGURATIONS = (".yaml", ".yml")

# Of each file that counts: its name, and what changes with it.
Fingerprint = tuple[tuple[str | int, ...], ...]


class Fetched(NamedTuple):
    """A model's files on this host, and what they were known by when they were read."""

    directory: Path
    fingerprint: Fingerprint
    # Equal for equal files.
    version: str | Fingerprint


class Source(Protocol):
    """All methods but `is_near` may block, and are called in threads."""

    @property
    def url(self) -> str:
        """As it was said, and as it is shown and remembered."""

    @property
    def name(self) -> str:
        """For messages to the owner of the model."""

    @property
    def changes_at_once(self) -> bool:
        """What has changed is complete: it cannot be seen while it is being written."""

    def is_near(self, contents: CachedContents) -> bool:
        """Nothing but this host is needed to fetch it, as far as is known. `contents` are what lies in the cache."""

    def exists(self) -> bool:
        """Whether there is anything that could be a model."""

    def fingerprint(self) -> Fingerprint:
        """What tells newer files from older ones. Empty if nothing is there, or nothing is known."""

    def renew(self) -> bool:
        """Looks anew, where `fingerprint` says what was seen some time ago, and says whether there is anything. Raises
        ServingError where that cannot be said."""

    def fetch(self, archives: ArchiveCache) -> Fetched:
        """The files as they are now. Raises ServingError, ArchiveError or OSError."""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A directory or an archive of this host."""

    path: Path

    @property
    def url(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def changes_at_once(self) -> bool:
        return False

    def is_near(self, contents: CachedContents) -> bool:
        return True

    def exists(self) -> bool:
        # os.path's, since those of a Path raise what the system says to a name that is too long.
        return os.path.isdir(self.path) or (name_of(self.path) is not None and os.path.isfile(self.path))

    def fingerprint(self) -> Fingerprint:
        """Of a directory only what is loaded counts: the model's code works in it, and may write there."""
        try:
            if not self.path.is_dir():
                return (_stamp(self.path.name, self.path.stat()),)
            return tuple(sorted(_stamps(self.path)))
        except OSError:
            return ()

    def renew(self) -> bool:
        return self.exists()

    def fetch(self, archives: ArchiveCache) -> Fetched:
        # Before anything is read: what changes from now on is newer than what is read.
        seen = self.fingerprint()
        if self.path.is_dir():
            return Fetched(self.path, seen, seen)
        directory, digest = archives.unpacked(self.path)
        return Fetched(directory, seen, digest)


def is_loaded(entry: os.DirEntry[str]) -> bool:
    """Whether a worker would load it: code, a model, or what is said of these."""
    return entry.name in _OTHER_FILES or entry.name.endswith(".py") or is_model(Path(entry.path))


def _stamps(directory: Path, folders: Collection[str] = contracts.CODE_DIRECTORIES) -> Iterator[tuple[str | int, ...]]:
    for entry in os.scandir(directory):
        if entry.name in folders and entry.is_dir():
            # No farther down: links that lead back up would never end.
            for name, *rest in _stamps(Path(entry.path), ()):
                yield f"{entry.name}/{name}", *rest
        elif is_loaded(entry) or entry.name.endswith(_CONFIGURATIONS):
            yield _stamp(entry.name, entry.stat())


def _stamp(name: str, status: os.stat_result) -> tuple[str | int, ...]:
    return name, status.st_ino, status.st_mtime_ns, status.st_size
