"""What is done with an object that is downloaded, where no server is needed to see it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mmserve.errors import DiskFull, StartError
from mmserve.models.archive import ArchiveCache
from mmserve.models.s3 import S3, S3Options, Stored
from mmserve.models.s3_objects import Objects
from mmserve.models.s3_records import CachedObjects
from mmserve.models.s3_store import S3Store

URL = "s3://bucket/fleet/model.tar.gz"


class _FullDisk(S3):
    def head(self, bucket: str, key: str, *, patient: bool = True) -> Stored | None:
        return Stored("etag", 100)

    def download(self, bucket: str, key: str, file: Path) -> Stored:
        file.write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named_and_what_was_downloaded_is_gone(tmp_path: Path) -> None:
    objects = Objects(_FullDisk(S3Options(), 1.0), CachedObjects(tmp_path), 60.0)
    archives = ArchiveCache(tmp_path)
    with pytest.raises(DiskFull, match=str(tmp_path)):
        objects.source(URL).fetch(archives)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "shown"), [("s3://b/p", "s3://b/p/"), ("s3://b/p/q/", "s3://b/p/q/"), ("s3://b", "s3://b/")]
)
def test_a_prefix_ends_with_a_slash(tmp_path: Path, url: str, shown: str) -> None:
    assert S3Store(url, Objects(S3(S3Options(), 1.0), CachedObjects(tmp_path), 60.0)).url == shown


def test_a_store_has_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="s3://BUCKET/PREFIX/"):
        S3Store("s3:///p/", Objects(S3(S3Options(), 1.0), CachedObjects(tmp_path), 60.0))


def test_leftovers_of_records_are_removed_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "s3"
    directory.mkdir()
    (directory / ".0.json-1a").touch()
    (directory / "0.json").touch()
    CachedObjects(tmp_path)
    assert os.listdir(directory) == ["0.json"]
