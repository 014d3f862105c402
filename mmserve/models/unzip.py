"""Reads a zip archive, after its directory has been found to describe a zip that somebody made in earnest."""

from __future__ import annotations

import io
import stat
import zipfile
from functools import partial
from itertools import pairwise
from typing import BinaryIO

from mmserve.models.destination import CHUNK, ArchiveError, Destination, UnpackLimits, refusal

# A record of the central directory with a name as long as a path may be.
MAX_RECORD = 4096

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL_HEADER = 30


def unzip(file: BinaryIO, destination: Destination, limits: UnpackLimits) -> None:
    """Writes all members to the destination."""
    # zipfile reads the whole directory before anything can be asked about it.
    bounded = _Bounded(file.fileno(), max_read=max(CHUNK, limits.max_files * MAX_RECORD))
    with zipfile.ZipFile(bounded) as archive:
        members = archive.infolist()
        _refuse_overlaps(members, archive.start_dir)
        if sum(member.file_size for member in members) > limits.max_bytes:
            raise ArchiveError(f"the archive unpacks to more than {limits.max_bytes} bytes")
        for member in members:
            _add(archive, member, destination)


def _add(archive: zipfile.ZipFile, member: zipfile.ZipInfo, destination: Destination) -> None:
    name = member.orig_filename  # `filename` is what zipfile left of it in front of a NUL.
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refusal(name, "is neither a file nor a directory")
    if member.flag_bits & _ENCRYPTED:
        raise refusal(name, "is encrypted")
    # bzip2 and LZMA are decompressed by zipfile without a bound: 4 KiB may become gigabytes in memory.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refusal(name, "is compressed by another method than deflate")
    if name.endswith("/"):
        destination.add_directory(name)
        return
    if stat.S_ISDIR(mode):
        raise refusal(name, "is a directory with the name of a file")
    with archive.open(member) as content:
        chunks = iter(partial(content.read, CHUNK), b"")
        destination.add_file(name, stat.S_IMODE(mode) or 0o644, member.file_size, chunks)


def _refuse_overlaps(members: list[zipfile.ZipInfo], directory: int) -> None:
    """Members that share their compressed bytes make a bomb out of a small file, past any ratio of deflate."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    for member, following in pairwise([*ordered, None]):
        assert member is not None
        end = member.header_offset + _LOCAL_HEADER + len(member.orig_filename) + member.compress_size
        if end > (directory if following is None else following.header_offset):
            raise refusal(member.orig_filename, "overlaps with another")


class _Bounded(io.BufferedReader):
    """The file as zipfile sees it: no read is larger than an honest archive needs, no offset outside of it."""

    def __init__(self, descriptor: int, max_read: int) -> None:
        super().__init__(io.FileIO(descriptor, closefd=False))
        self._max_read = max_read
        self._size = self.seek(0, io.SEEK_END)

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        if size is None or size < 0 or size > left:
            size = left
        if size > self._max_read:
            raise ArchiveError("the archive has a directory of more entries than are allowed")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and not 0 <= offset <= self._size:
            raise zipfile.BadZipFile("an offset points out of the file")
        return super().seek(offset, whence)
