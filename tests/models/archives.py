"""Builds archives that no tool would, with names, links and sizes as an attacker writes them, and has them refused."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import pytest

from mmserve.models.archive import ArchiveError, UnpackLimits, unpack

MODEL = b"not a pickle, and never opened"

LIMITS = UnpackLimits(max_bytes=1 << 24, max_files=100)


def refused(archive: Path, limits: UnpackLimits = LIMITS) -> str:
    """The message with which it is refused, when it is sure that nothing was kept or written elsewhere."""
    place = archive.parent
    cache = place / "cache"
    cache.mkdir(exist_ok=True)
    before = sorted(place.rglob("*"))
    with pytest.raises(ArchiveError) as raised:
        unpack(archive, cache, limits)
    assert sorted(place.rglob("*")) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def regular(name: str, content: bytes = MODEL, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = mode
    return member, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member, b""


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.SYMTYPE, target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.LNKTYPE, target)


def directory(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.DIRTYPE)


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Compressed if the name says so. Members are written as they are."""
    mode: Literal["w", "w:gz"] = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def zip_member(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = mode << 16
    return member


def deflated_zeros(gigabytes: int) -> bytes:
    """A raw deflate stream of so many zeros, made in milliseconds: blocks after a full flush may be repeated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(1 << 24)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * (gigabytes * 64) + compressor.flush(zlib.Z_FINISH)


def gzipped(start: bytes, gigabytes_of_zeros: int) -> bytes:
    """A gzip stream of `start` and the zeros behind it. Its checksum is wrong, which nobody gets to see."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    start = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    return header + start + deflated_zeros(gigabytes_of_zeros) + bytes(8)


def raw_zip(*members: tuple[str, bytes, int, int], shared: bool = False) -> bytes:
    """A zip of deflated members as (name, compressed, size that is said, flags); `shared` lets all be the first."""
    body, records = b"", b""
    for name, compressed, size, flags in members:
        offset = 0 if shared else len(body)
        fields = struct.pack("<HHHHHIIIHH", 20, flags, 8, 0, 0x21, 0, len(compressed), size, len(name), 0)
        if not shared or not body:
            body += b"PK\3\4" + fields + name.encode() + compressed
        records += (
            b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name.encode()
        )
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(records), len(body), 0)
    return body + records + b"PK\5\6" + end
