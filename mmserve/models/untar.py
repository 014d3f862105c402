"""Reads a tar archive from front to back, with nothing believed that a header says.

`tarfile` takes the headers apart; it never sees the disk, and never more bytes at once than a header may have.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from typing import Protocol

from mmserve.models.destination import CHUNK, ArchiveError, Destination, refusal

# For one member: its header, with the pax records that go before it. Extended attributes are the largest honest
# thing there; a pax record of gigabytes of zeros costs an attacker nothing, and tarfile would read it at once.
MAX_HEADER = 64 * 1024

# Records that hold for all members behind them are copied for each; `git archive` writes one.
MAX_GLOBAL_RECORDS = 100

# tar pads an archive to a full record, 10 KiB most often. What lies farther behind the end is no padding.
MAX_PADDING = 1 << 20

# tarfile searched headers with an expression that is quadratic in the length of a run of digits (CVE-2024-6232, in
# CPython before 3.11.10 and 3.12.6): 64 KiB of them held the GIL for 2-10 s. No name or number has as many as this.
_DIGITS = re.compile(rb"[0-9]{256}")


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def untar(stream: Readable, destination: Destination) -> None:
    """Writes all members to the destination. `stream` is the plain tar, decompressed."""
    headers = _Headers(stream)
    tar = tarfile.TarFile(fileobj=headers, encoding="utf-8")
    while (member := tar.next()) is not None:
        if len(tar.pax_headers) > MAX_GLOBAL_RECORDS:
            raise ArchiveError(f"the archive has more than {MAX_GLOBAL_RECORDS} global pax records")
        _add(member, headers, destination)
        tar.members.clear()  # type: ignore[attr-defined]  # It would keep all of them, with all of their records.
        headers.expect_one()
    headers.check_end()


def _add(member: tarfile.TarInfo, headers: _Headers, destination: Destination) -> None:
    name = member.name
    if member.issparse():
        # Its map of holes is a language of its own, and none of the formats of models profits from it.
        raise refusal(name, "is a sparse file")
    if member.isdir():
        destination.add_directory(name)
    elif member.isreg():
        destination.add_file(name, member.mode, member.size, headers.content(member.size))
    elif member.issym():
        destination.add_symlink(name, member.linkname)
    elif member.islnk():
        destination.add_hard_link(name, member.linkname)
    else:
        raise refusal(name, "is neither a file nor a directory nor a link")


class _Headers(io.BufferedIOBase):
    """The stream as tarfile sees it: forward only, and no more than one member's headers at a time.

    The content of files goes past tarfile. Nothing is read ahead, so what was read last is what tarfile judged last.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._position = 0
        self._allowed = MAX_HEADER
        self._last = b""

    def expect_one(self) -> None:
        self._allowed = MAX_HEADER

    def content(self, size: int) -> Iterator[bytes]:
        while size > 0:
            chunk = self._stream.read(min(size, CHUNK))
            if not chunk:
                raise EOFError("it ends in the middle of a file")
            self._position += len(chunk)
            size -= len(chunk)
            yield chunk

    def check_end(self) -> None:
        """tarfile takes whatever it cannot read as a header for the end of the archive, silently."""
        if not self._last:
            raise EOFError("its end is missing")
        if self._last.strip(b"\0"):
            raise tarfile.ReadError("a header cannot be read")
        # To the end of the stream: only there does gzip compare its checksum.
        padding = 0
        while block := self._stream.read(CHUNK):
            padding += len(block)
            if padding > MAX_PADDING:
                raise ArchiveError("the archive holds data behind its end")

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise tarfile.ReadError("a header has a negative size")
        if size > self._allowed:
            raise ArchiveError(f"the archive has a header of more than {MAX_HEADER} bytes")
        self._allowed -= size
        self._last = self._stream.read(size)
        self._position += len(self._last)
        if _DIGITS.search(self._last):
            raise ArchiveError("the archive has a header with a number of more than 256 digits")
        return self._last

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        self.read(position - self._position)
        return self._position
