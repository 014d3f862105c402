"""Unpacks one archive into a cache of contents, in one step for everybody who looks: it is all there, or it is not.

Threads and processes may unpack the same archive at the same time; whoever is first wins, the others throw theirs
away. What the files in an archive mean is not known here.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import secrets
import shutil
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

from mmserve.errors import CacheUnwritable
from mmserve.models.destination import ArchiveError, Destination, UnpackLimits
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

_TEMPORARY = re.compile(r"\.tmp-([0-9]{1,7})-[0-9a-f]+")
_being_unpacked: set[str] = set()


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
    return directory.rename(_temporary_name(directory.parent))


def remove_leftovers(cache: Path) -> None:
    """Removes what processes left that were killed in the middle of an archive."""
    for entry in cache.iterdir():
        match = _TEMPORARY.fullmatch(entry.name)
        if match is not None and not _in_use(entry.name, int(match[1])):
            # Two servers that start at once may both be at it; what the one has removed is no error to the other.
            shutil.rmtree(entry, ignore_errors=True)


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
        raise ArchiveError(f"the archive is damaged: {error}") from error


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


@contextmanager
def temporary_directory(cache: Path) -> Iterator[Path]:
    """A directory that is gone afterwards, whatever happens, unless it got another name by then."""
    directory = _temporary_name(cache)
    _being_unpacked.add(directory.name)
    try:
        _make(directory)
        yield directory
    finally:
        if directory.exists():
            shutil.rmtree(directory)
        _being_unpacked.discard(directory.name)


def _make(directory: Path) -> None:
    """In a cache that somebody may have removed as a whole, to be rid of what is old."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise CacheUnwritable(str(directory.parent), str(error.strerror)) from error
        raise


def _temporary_name(cache: Path) -> Path:
    return cache / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"


def _in_use(temporary: str, process: int) -> bool:
    # In a container the process before us most likely had our own id.
    if process == os.getpid():
        return temporary in _being_unpacked
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
