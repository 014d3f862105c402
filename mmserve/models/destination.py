"""Where the members of an archive are written, and the rules that each of them has to keep.

An archive comes from somebody we do not know. Whatever its format says, it gets to the disk through a `Destination`
only: nothing outside the root, nothing over or through what an earlier member wrote, no more than the limits allow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

# Decompression stops within one chunk of the limit.
CHUNK = 256 * 1024

# Half of Linux's PATH_MAX, which leaves the other half to the root; a name's limit is that of the file systems.
MAX_PATH = 2048
MAX_NAME = 255

# Removing a tree takes a file descriptor and a Python call for each level.
MAX_DEPTH = 64


class ArchiveError(Exception):
    """An archive that is not unpacked: which member, and why. One line, for the owner of the model."""


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What one archive may cost on disk. Directories are counted as files, whether listed or implied."""

    max_bytes: int = 8 << 30
    max_files: int = 10_000


def refusal(member: str, reason: str) -> ArchiveError:
    shown = member if len(member) <= 200 else member[:200] + "..."
    return ArchiveError(f"{shown!r} {reason}")


class _Kind(Enum):
    DIRECTORY = auto()
    FILE = auto()
    LINK = auto()


class Destination:
    """An empty directory that nobody else writes to, as it fills."""

    def __init__(self, root: Path, limits: UnpackLimits) -> None:
        self._root = root
        self._limits = limits
        self._kinds = {"": _Kind.DIRECTORY}
        self._links: list[tuple[str, str]] = []
        self._files = 0
        self._bytes = 0

    def add_directory(self, member: str) -> None:
        path = self._checked_path(member)
        self._count(member)
        if self._kinds.get(path) is not _Kind.DIRECTORY:
            self._claim(member, path, _Kind.DIRECTORY)
            self._make_directory(path)

    def add_file(self, member: str, mode: int, size: int, chunks: Iterable[bytes]) -> None:
        """`size` is what the archive says, good for an early refusal; what counts are the bytes that come."""
        if member.endswith("/"):
            raise refusal(member, "is a file with the name of a directory")
        if self._bytes + size > self._limits.max_bytes:
            raise self._too_large(member)
        path = self._checked_path(member)
        self._count(member)
        self._claim(member, path, _Kind.FILE)
        with (self._root / path).open("xb") as file:
            for chunk in chunks:
                self._bytes += len(chunk)
                if self._bytes > self._limits.max_bytes:
                    raise self._too_large(member)
                file.write(chunk)
            # The owner can always read and replace; nobody else writes, and nothing is set-user-id.
            os.fchmod(file.fileno(), (mode & 0o755) | 0o600)

    def add_hard_link(self, member: str, target: str) -> None:
        try:
            source = self._checked_path(target)
        except ArchiveError as error:
            raise refusal(member, f"is a link: {error}") from None
        if self._kinds.get(source) is not _Kind.FILE:
            raise refusal(member, f"is a link to {target!r}, which is no file before it")
        path = self._checked_path(member)
        self._count(member)
        self._claim(member, path, _Kind.FILE)
        os.link(self._root / source, self._root / path)

    def add_symlink(self, member: str, target: str) -> None:
        path = self._checked_path(member)
        if not target or "\0" in target or len(os.fsencode(target)) > MAX_PATH:
            raise refusal(member, "is a link to a name that cannot be")
        leads_to = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if leads_to.startswith(("/", "../")) or leads_to == "..":
            raise refusal(member, f"is a link that leads out of the archive, to {target!r}")
        self._count(member)
        self._claim(member, path, _Kind.LINK)
        self._links.append((path, target))

    def finish(self) -> None:
        """Makes the symbolic links, now that nothing more can be written through them, and asks where they lead.

        A chain of links can leave the root although each of them, read as text, stays inside: so it is the file
        system that is asked, strictly. A link to nothing is refused with them: there is no telling where it leads.
        """
        if self._files == 0:
            raise ArchiveError("the archive is empty")
        root = os.path.realpath(self._root)
        for path, target in self._links:
            os.symlink(target, self._root / path)
        for path, target in self._links:
            try:
                real = os.path.realpath(self._root / path, strict=True)
            except OSError:
                raise refusal(path, f"is a link that leads to nothing in the archive, to {target!r}") from None
            if os.path.commonpath([root, real]) != root:
                raise refusal(path, f"is a link that leads out of the archive, to {target!r}")

    def _checked_path(self, member: str) -> str:
        """The path below the root, without the `.` and the doubled slashes that name the same file twice."""
        if "\0" in member:
            raise refusal(member, "has a NUL in its name")
        if member.startswith("/"):
            raise refusal(member, "has an absolute path")
        parts = [part for part in member.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise refusal(member, "leads out of its directory with '..'")
        path = "/".join(parts)
        if len(os.fsencode(path)) > MAX_PATH or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
            raise refusal(member, "has a name that is too long")
        if len(parts) > MAX_DEPTH:
            raise refusal(member, f"lies more than {MAX_DEPTH} directories deep")
        return path

    def _claim(self, member: str, path: str, kind: _Kind) -> None:
        """Reserves a path that nothing has yet, below directories only; those that are implied are made."""
        if path in self._kinds:
            raise refusal(member, "is in the archive twice")
        for end in (index for index, character in enumerate(path) if character == "/"):
            parent = path[:end]
            found = self._kinds.get(parent)
            if found is None:
                self._count(member)
                self._kinds[parent] = _Kind.DIRECTORY
                self._make_directory(parent)
            elif found is not _Kind.DIRECTORY:
                raise refusal(member, f"would be written through the {found.name.lower()} {parent!r}")
        self._kinds[path] = kind

    def _make_directory(self, path: str) -> None:
        directory = self._root / path
        directory.mkdir()
        directory.chmod(0o755)  # Whatever the umask is.

    def _count(self, member: str) -> None:
        self._files += 1
        if self._files > self._limits.max_files:
            raise refusal(member, f"is one file too many, more than {self._limits.max_files}")

    def _too_large(self, member: str) -> ArchiveError:
        return refusal(member, f"makes the archive unpack to more than {self._limits.max_bytes} bytes")
