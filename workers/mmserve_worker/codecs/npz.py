"""NumPy's npz format, a zip of npy arrays: the only array in it, or the one called data, inputs, instances, x
or X.

A zip bomb is found before anything is unpacked: what the directory claims is what is read at most, and the
two methods that numpy.savez uses are the only ones taken (zipfile cannot bound how far bzip2 and lzma unpack
at once).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmserve_worker.calls import Buffer
from mmserve_worker.codecs import npy
from mmserve_worker.codecs.limits import largest_expansion
from mmserve_worker.codecs.refusals import bad_request, quoted
from mmserve_worker.codecs.rows import Array, Rows

_NAMES = ("data", "inputs", "instances", "x", "X")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# All that zipfile is known to raise for a file that is none, or that is encrypted.
_MALFORMED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def decode(body: Buffer) -> Rows:
    with _opened(body) as archive:
        return Rows(_array(archive, _member(archive)))


def decode_all(body: Buffer, names: Sequence[str]) -> dict[str, Array]:
    """The arrays of these names, every one of which has to be there."""
    with _opened(body) as archive:
        members = _members(archive)
        missing = [name for name in names if name not in members]
        if missing:
            raise bad_request(f"the npz file has no array called {', '.join(map(quoted, missing))}")
        if sum(members[name].file_size for name in names) > largest_expansion():
            raise bad_request(f"the npz file unpacks to more than the {largest_expansion()} bytes that are taken")
        return {name: _array(archive, members[name]) for name in names}


@contextmanager
def _opened(body: Buffer) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            yield archive
    except _MALFORMED as error:
        raise bad_request(f"not an npz file: {quoted(str(error))}") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {member.filename.removesuffix(".npy"): member for member in archive.infolist()}


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = _members(archive)
    if len(members) == 1:
        member = next(iter(members.values()))
    else:
        named = [members[name] for name in _NAMES if name in members]
        if not named:
            raise bad_request(f"the npz file has {len(members)} arrays and none is called {', '.join(_NAMES)}")
        member = named[0]
    return member


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    if member.compress_type not in _METHODS:
        raise bad_request("the npz file is compressed in a way that numpy.savez does not use")
    if member.file_size > largest_expansion():
        raise bad_request(f"the npz file unpacks to {member.file_size} bytes: at most {largest_expansion()} are taken")
    with archive.open(member) as opened:
        # With the size: without it a whole chunk is unpacked before what the directory claims is looked at.
        data = opened.read(member.file_size)
    return npy.array(data)
