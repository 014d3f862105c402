"""The model store: a directory in which every sub-directory and every archive is a model by its name.

Looked at when a name is asked for, not watched: what is dropped into it is there for the next request.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from urllib.parse import unquote

from mmserve.errors import BadRequest, StartError
from mmserve.models.archive import SUFFIXES, name_of, valid_name

logger = logging.getLogger("mmserve.models")


class DirectoryStore:
    """Its methods block on the file system and are called in a thread."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory).absolute()
        # What has been said to be no model.
        self._ignored: set[str] = set()
        if not self.directory.is_dir():
            raise StartError(f"The model store does not exist or is not a directory: {directory}")
        if not os.access(self.directory, os.R_OK | os.X_OK):
            raise StartError(f"The model store may not be read: {directory}")

    def find(self, name: str) -> Path | None:
        """Where the model of this name is, a directory before an archive."""
        if not valid_name(name):
            return None
        directory = self.directory / name
        if directory.is_dir():
            return directory
        archives = (self.directory / (name + suffix) for suffix in SUFFIXES)
        return next((archive for archive in archives if archive.is_file()), None)

    def models(self) -> dict[str, Path]:
        """All models by name, sorted."""
        found: dict[str, Path] = {}
        with os.scandir(self.directory) as entries:
            for entry in sorted(entries, key=_order):
                name = entry.name if _is_directory(entry) else name_of(entry.name)
                if name is not None and valid_name(name):
                    found.setdefault(name, Path(entry.path))
                elif not entry.name.startswith(".") and entry.name not in self._ignored:
                    self._ignored.add(entry.name)
                    logger.warning("in the model store, but no model by its name: %r", entry.name)
        return dict(sorted(found.items()))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads in circles.
        return False


def _order(entry: os.DirEntry[str]) -> int:
    """Of what there is for one model that comes first which `find` finds: a directory, then by suffix."""
    if _is_directory(entry):
        return -1
    return next((place for place, suffix in enumerate(SUFFIXES) if entry.name.endswith(suffix)), len(SUFFIXES))


def resolve(url: str, base: Path) -> Path:
    """The path that a registration's `url` means: a file: URL, an absolute path, or one relative to `base`."""
    if "://" in url and not url.startswith("file://"):
        raise BadRequest(f"Not a url that models come from: {url}: say a name in the store, a path, or file://PATH.")
    path = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    return base / path
