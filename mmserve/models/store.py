"""The model store: a directory in which every sub-directory and every archive is a model by its name.

Looked at when a name is asked for, not watched: what is dropped into it is there for the next request.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from mmserve.errors import StartError
from mmserve.models.archive import SUFFIXES, name_of, valid_name


class DirectoryStore:
    """Its methods block on the file system and are called in a thread."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory).absolute()
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
                if entry.is_dir():
                    if valid_name(entry.name):
                        found[entry.name] = Path(entry.path)
                elif (name := name_of(entry.name)) is not None and valid_name(name):
                    found.setdefault(name, Path(entry.path))
        return dict(sorted(found.items()))


def _order(entry: os.DirEntry[str]) -> int:
    """Of several archives of one model the one is listed that `find` finds."""
    return next((place for place, suffix in enumerate(SUFFIXES) if entry.name.endswith(suffix)), len(SUFFIXES))


def resolve(url: str, base: Path) -> Path:
    """The path that a registration's `url` means: a file: URL, an absolute path, or one relative to `base`."""
    path = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    return base / path
