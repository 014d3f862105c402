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

from mmserve_worker.calls import Buffer
from mmserve_worker.codecs import npy
from mmserve_worker.codecs.limits import largest_expansion
from mmserve_worker.codecs.refusals import bad_request, quoted
from mmserve_worker.codecs.rows import Rows

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
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            member = _member(archive)
            with archive.open(member) as opened:
                # With the size: without it a whole chunk is unpacked before what the directory claims is looked at.
                data = opened.read(member.file_size)
    except _MALFORMED as error:
        raise bad_request(f"not an npz file: {quoted(str(error))}") from None
    return Rows(npy.array(data))


def _member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if len(members) == 1:
        member = next(iter(members.values()))
    else:
        named = [members[name] for name in _NAMES if name in members]
        if not named:
            raise bad_request(f"the npz file has {len(members)} arrays and none is called {', '.join(_NAMES)}")
        member = named[0]
    if member.compress_type not in _METHODS:
        raise bad_request("the npz file is compressed in a way that numpy.savez does not use")
    if member.file_size > largest_expansion():
        raise bad_request(f"the npz file unpacks to {member.file_size} bytes: at most {largest_expansion()} are taken")
    return member
