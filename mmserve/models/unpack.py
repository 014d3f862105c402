"""Unpacks one archive into a cache of contents, in one step for everybody who looks: it is all there, or it is not.

Threads and processes may unpack the same archive at the same time; whoever is first wins, the others throw theirs
away. What the files in an archive mean is not known here.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from mmserve.models.destination import ArchiveError, Destination, UnpackLimits
from mmserve.models.temporary import free_name, temporary_directory
from mmserve.models.untar import untar
from mmserve.models.unzip import unzip

# What the libraries raise for bytes that are no archive, or no longer one.
_DAMAGE = (
    EOFError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    ValueError,
    gzip.BadGzipFile,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)

# Of the digest in a directory's name: 128 bits, which nobody finds a second archive for.
NAME_LENGTH = 32

# Where the format is said in a tar's header; those of 1979 do not say it.
_TAR_MAGIC = slice(257, 262)
# Bytes of a file that is no archive.
_SHOWN = 16


class Version(NamedTuple):
    """One state of one file: while all of this holds, its content has not changed.

    Whoever writes to a file can put its `mtime` back, but not its `ctime`.
    """

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def version_of(archive: Path, file: BufferedReader) -> Version:
    status = os.fstat(file.fileno())
    return Version(str(archive), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def digest_of(file: BufferedReader) -> str:
    """The whole SHA-256, in hexadecimal digits."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def content_name(digest: str) -> str:
    return digest[:NAME_LENGTH]


def directory_for(cache: Path, digest: str) -> Path:
    return cache / content_name(digest)


@contextmanager
def opened(archive: Path) -> Iterator[BufferedReader]:
    # To open a pipe would be to wait for a writer, for ever.
    if not stat.S_ISREG(archive.stat().st_mode):
        raise ArchiveError("the archive is not a file")
    with archive.open("rb") as file:
        yield file


def unpack(archive: Path, cache: Path, limits: UnpackLimits) -> Path:
    """The directory with the archive's content, unpacked into the cache unless it is there.

    Raises ArchiveError for an archive that is damaged or not to be trusted, and OSError where a file cannot be read
    or the disk is full. In either case nothing is left of it.
    """
    with opened(archive) as file:
        version = version_of(archive, file)
        return unpack_version(version, file, directory_for(cache, digest_of(file)), limits)


def unpack_version(version: Version, file: BufferedReader, target: Path, limits: UnpackLimits) -> Path:
    """As `unpack`, for an open archive whose version, as it was before its digest was taken, and target are known."""
    if not target.is_dir():
        with temporary_directory(target.parent) as temporary:
            _extract(file, temporary, limits)
            if version_of(Path(version.path), file) != version:
                raise ArchiveError("the archive was changed while it was read")
            temporary.chmod(0o755)
            _rename(temporary, target)
    return content_of(target)


def set_aside(directory: Path) -> Path:
    """Takes a content out of the cache in one step. It is to be removed by the name that it has now."""
    return directory.rename(free_name(directory.parent))


def _extract(file: BufferedReader, directory: Path, limits: UnpackLimits) -> None:
    """The first bytes tell the format. Archives that are compressed, or are not, in spite of their names abound."""
    destination = Destination(directory, limits)
    file.seek(0)
    magic = file.read(2)
    file.seek(0)
    try:
        if magic == b"PK":
            unzip(file, destination, limits)
        elif magic == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                untar(stream, destination)
        else:
            untar(file, destination)
        destination.finish()
    except _DAMAGE as error:
        beginning = _beginning_of_none(file)
        if beginning:
            raise ArchiveError(f"the archive is no tar, gzip or zip file: it begins with {beginning!r}") from error
        raise ArchiveError(f"the archive is damaged: {error}") from error


def _beginning_of_none(file: BufferedReader) -> bytes:
    """The first bytes of what never was an archive: the page of a proxy, say, or a model that was not packed."""
    file.seek(0)
    header = file.read(_TAR_MAGIC.stop)
    if header.startswith((b"PK", b"\x1f\x8b")) or header[_TAR_MAGIC] == b"ustar" or not header.strip(b"\0"):
        return b""
    return header[:_SHOWN]


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        # Most likely another process was faster, with the same bytes.
        if not target.is_dir():
            raise


def content_of(directory: Path) -> Path:
    """The directory itself, or the only one in it: people tar a directory as often as its files."""
    # Hidden names and `__MACOSX` are what macOS adds to an archive.
    with os.scandir(directory) as entries:
        visible = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    if len(visible) == 1 and visible[0].is_dir(follow_symlinks=False):
        return directory / visible[0].name
    return directory
