"""What is done with an object that is downloaded, where no server is needed to see it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from mmserve.errors import DiskFull, ModelFailed, StartError, StoreUnavailable
from mmserve.models.archive import ArchiveCache
from mmserve.models.s3 import S3, S3Options, Stored
from mmserve.models.s3_objects import Objects
from mmserve.models.s3_records import CachedObjects
from mmserve.models.s3_store import S3Store
from tests.http.s3_models import archive

KEY = "fleet/model.tar.gz"
URL = f"s3://bucket/{KEY}"
# Seconds between two looks, of which there are none here.
_INTERVAL = 60.0


class _Bucket(S3):
    """What is in it by key, without a server. With `away`, it does not answer."""

    def __init__(self) -> None:
        super().__init__(S3Options(), 1.0)
        self.content: dict[str, bytes] = {}
        self.away = False

    def head(self, bucket: str, key: str, *, patient: bool = True) -> Stored | None:
        if self.away:
            raise StoreUnavailable("away")
        return self._stored(key) if key in self.content else None

    def list(self, bucket: str, prefix: str) -> dict[str, Stored]:
        return {key: self._stored(key) for key in self.content if key.startswith(prefix)}

    def download(self, bucket: str, key: str, file: Path, largest: int) -> Stored | None:
        if key not in self.content:
            return None
        file.write_bytes(self.content[key])
        return self._stored(key)

    def _stored(self, key: str) -> Stored:
        return Stored(hashlib.md5(self.content[key], usedforsecurity=False).hexdigest(), len(self.content[key]))


class _FullDisk(_Bucket):
    def download(self, bucket: str, key: str, file: Path, largest: int) -> Stored:
        file.write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Host:
    """A cache, and a bucket with one model."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bucket = _Bucket()
        self.bucket.content[KEY] = archive("ja")
        self.archives = ArchiveCache(directory)
        self.objects = Objects(self.bucket, CachedObjects(directory), _INTERVAL)
        self.source = self.objects.source(URL)

    def fetch(self) -> Path:
        return self.source.fetch(self.archives).directory

    def restarted(self) -> Objects:
        return Objects(self.bucket, CachedObjects(self.directory), _INTERVAL)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_full_disk_is_named_and_what_was_downloaded_is_gone(tmp_path: Path) -> None:
    bucket = _FullDisk()
    bucket.content[KEY] = b"whole"
    objects = Objects(bucket, CachedObjects(tmp_path), _INTERVAL)
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


@pytest.mark.parametrize("how", ["looked at", "listed", "downloaded", "listed after a restart"])
def test_what_was_deleted_is_not_served_of_the_cache(host: Host, how: str) -> None:
    host.fetch()
    again = host.restarted() if how == "listed after a restart" else host.objects
    assert again.is_cached(host.source)
    del host.bucket.content[KEY]
    if how == "looked at":
        assert not host.source.renew()
    elif how == "downloaded":
        shutil.rmtree(host.fetch())
        with pytest.raises(ModelFailed, match="There is no object"):
            host.fetch()
    else:
        again.list("bucket", "fleet/")
    assert not again.is_cached(host.source)
    host.bucket.away = True
    with pytest.raises(StoreUnavailable):
        host.restarted().source(URL).fetch(host.archives)


def test_a_list_forgets_nothing_that_it_is_not_about(host: Host) -> None:
    host.fetch()
    host.objects.list("bucket", "fle/")
    host.objects.list("bucket", "fleet/")
    assert host.restarted().is_cached(host.source)


def test_the_same_url_elsewhere_is_another_object(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.fetch()
    assert not Objects(host.bucket, CachedObjects(host.directory, "http://minio"), _INTERVAL).is_cached(host.source)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio")
    assert not host.restarted().is_cached(host.source)
    host.restarted().list("bucket", "")
    host.restarted().source(URL).fetch(host.archives)
    assert host.restarted().is_cached(host.source)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert host.restarted().is_cached(host.source)


def test_what_has_to_be_downloaded_is_not_near(host: Host) -> None:
    contents = host.archives.contents
    assert not host.source.is_near(contents)
    host.fetch()
    assert host.source.is_near(contents)
    contents.tidy([], time.monotonic() + 1e-6, halve=True)
    assert not host.source.is_near(contents)


def test_what_may_have_changed_is_not_near(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.fetch()
    later = time.monotonic() + 3 * _INTERVAL
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not host.source.is_near(host.archives.contents)
