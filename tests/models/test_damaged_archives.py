"""Archives that are damaged, or none at all: each is refused as such, and nothing is kept of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmserve.models.archive import ArchiveError, unpack
from tests.models import archives
from tests.models.archives import LIMITS, refused, regular, symlink


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.zip"])
@pytest.mark.parametrize("content", [b"", b"x", b"PK", b"\x1f\x8b", bytes(10240), b"<html>404</html>" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).startswith("the archive is ")


@pytest.mark.parametrize("content", [b"<html>404</html>" * 100, b"\x80\x04\x95" + b"a pickle" * 100])
def test_what_never_was_an_archive_is_told_by_its_beginning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.tar.gz").write_bytes(content)
    assert refused(tmp_path / "m.tar.gz") == (
        f"the archive is no tar, gzip or zip file: it begins with {content[:16]!r}"
    )


def sound(place: Path, name: str) -> bytes:
    """An archive whose content gzip and zip cannot make much smaller."""
    content = os.urandom(20_000)
    if name.endswith(".zip"):
        return archives.write_zip(place / name, ("model.joblib", content), ("d/a.py", b"x = 1")).read_bytes()
    return archives.write_tar(place / name, regular("model.joblib", content), regular("d/a.py")).read_bytes()


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.zip"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6])
def test_a_truncated_archive_is_damaged(tmp_path: Path, name: str, kept: float) -> None:
    content = sound(tmp_path, name)
    (tmp_path / name).write_bytes(content[: int(len(content) * kept)])
    assert refused(tmp_path / name).startswith("the archive is damaged: ")


@pytest.mark.parametrize(("name", "where"), [("m.tar.gz", 0.5), ("m.tar.gz", 0.9999), ("m.zip", 0.5), ("m.tar", 0)])
def test_an_archive_with_a_changed_byte_is_damaged(tmp_path: Path, name: str, where: float) -> None:
    content = bytearray(sound(tmp_path, name))
    content[int(len(content) * where)] ^= 0x55
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).startswith("the archive is damaged: ")


def test_a_tar_that_ends_between_two_members_is_damaged(tmp_path: Path) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", regular("model.joblib"), regular("features.py"))
    os.truncate(archive, 1024)
    assert refused(archive) == "the archive is damaged: its end is missing"


def test_a_header_damaged_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", regular("model.joblib"), regular("features.py"))
    content = bytearray(archive.read_bytes())
    content[1024] ^= 1
    archive.write_bytes(content)
    assert refused(archive) == "the archive is damaged: a header cannot be read"


@pytest.mark.parametrize("name", ["m.tar", "m.tar.gz", "m.zip"])
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_anywhere_is_unpacked_or_refused_and_never_anything_else(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("place")
    (place / "cache").mkdir()
    members = [regular("model.joblib"), regular("n" * 150), symlink("l", "model.joblib")]
    if name == "m.zip":
        archive = archives.write_zip(place / name, ("model.joblib", archives.MODEL), ("d/", b""))
    else:
        archive = archives.write_tar(place / name, *members)
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        unpack(archive, place / "cache", LIMITS)
    except ArchiveError:
        assert list((place / "cache").iterdir()) == []
