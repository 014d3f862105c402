"""The model store: where a model is found by its name alone. A directory here, a prefix of S3 in s3_store.py.

Looked at when a name is asked for, not watched: what is dropped into it is there for the next request.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mmserve.errors import StartError
from mmserve.models.archive import SUFFIXES, name_of, valid_name, why_no_model
from mmserve.models.source import LocalSource, Source, is_loaded
from mmserve_worker.handlers import contracts

logger = logging.getLogger("mmserve.models")

# Directories in directories that are looked into for archives.
_DEEPEST = 16
# What ext4 has at the top of every disk.
_LOST_AND_FOUND = "lost+found"


class Store(Protocol):
    """All methods but `known` and `source` may block, and are called in threads."""

    @property
    def url(self) -> str:
        """As it is shown."""

    def known(self, name: str) -> Source | None:
        """As `find`, of what is known without a look."""

    def find(self, name: str) -> Source | None:
        """Where the model of this name comes from. Raises ServingError where that cannot be said."""

    def recall(self, name: str) -> Source | None:
        """The same of a model that there was before the server's start, without asking other hosts."""

    def models(self) -> dict[str, str]:
        """The urls of all models by name."""

    def count(self) -> int | None:
        """How many there are, if that is known without asking other hosts."""

    def source(self, relative: str) -> Source:
        """What is registered by a url that is relative to the store."""


class DirectoryStore:
    """Every sub-directory and every archive is a model; archives may also lie in directories that are no models."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory).absolute()
        # What has been said to be no model.
        self._ignored: set[str] = set()
        if not self.directory.is_dir():
            raise StartError(f"The model store does not exist or is not a directory: {directory}")
        if not os.access(self.directory, os.R_OK | os.X_OK):
            raise StartError(f"The model store may not be read: {directory}")

    @property
    def url(self) -> str:
        return str(self.directory)

    def known(self, name: str) -> LocalSource | None:
        return None

    def find(self, name: str) -> LocalSource | None:
        """A directory before an archive."""
        if not valid_name(name):
            return None
        path = self.directory / name
        above = path.relative_to(self.directory).parents[:-1]
        if any(_holds_model(self.directory / folder) for folder in above):
            # What lies in a model's directory is the model's.
            return None
        try:
            if not above and path.is_dir() and not _is_folder(path, _DEEPEST):
                return LocalSource(path)
            archives = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
            return next((LocalSource(archive) for archive in archives if archive.is_file()), None)
        except OSError:
            # A name that is longer than the file system's may be.
            return None

    def recall(self, name: str) -> LocalSource | None:
        return self.find(name)

    def models(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, path in self._entries(self.directory, "", _DEEPEST):
            if name is not None and valid_name(name):
                found.setdefault(name, path)
            elif path not in self._ignored:
                self._ignored.add(path)
                relative = os.path.relpath(path, self.directory)
                logger.warning("in the model store, but no model by its name: %r: %s", relative, why_no_model(name))
        return dict(sorted(found.items()))

    def count(self) -> int:
        return len(self.models())

    def source(self, relative: str) -> LocalSource:
        return LocalSource(self.directory / relative)

    def _entries(self, directory: Path, prefix: str, levels: int) -> Iterator[tuple[str | None, str]]:
        """What is there, by the names that it would have as models."""
        for entry in sorted(_scan(directory), key=_order):
            if entry.name.startswith(".") or entry.name == _LOST_AND_FOUND:
                continue
            name = entry.name if _is_directory(entry) else name_of(entry.name)
            if _is_directory(entry) and _is_folder(Path(entry.path), levels):
                yield from self._entries(Path(entry.path), f"{prefix}{name}/", levels - 1)
            elif not prefix or not _is_directory(entry):
                yield name and prefix + name, entry.path


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not (entry.is_symlink() and _leads_back_up(entry.path))
    except OSError:
        # A link to itself.
        return False


def _leads_back_up(link: str) -> bool:
    """What is below it would be found over and over: with three of them in a directory, 43 million times."""
    above = os.path.join(os.path.realpath(os.path.dirname(link)), "")
    return above.startswith(os.path.join(os.path.realpath(link), ""))


def _order(entry: os.DirEntry[str]) -> int:
    """Of what there is for one model that comes first which `find` finds: a directory, then by suffix."""
    if _is_directory(entry):
        return -1
    return next((place for place, suffix in enumerate(SUFFIXES) if entry.name.endswith(suffix)), len(SUFFIXES))


def _is_folder(directory: Path, levels: int) -> bool:
    """It is no model, but there are archives in it, or in directories in it."""
    return (
        levels > 0
        and not _holds_model(directory)
        and any(
            _is_folder(Path(entry.path), levels - 1) if _is_directory(entry) else name_of(entry.name) is not None
            for entry in _scan(directory)
        )
    )


def _holds_model(directory: Path) -> bool:
    return any(is_loaded(entry) or entry.name in contracts.CODE_DIRECTORIES for entry in _scan(directory))


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []
