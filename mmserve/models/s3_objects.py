"""Models that are objects of S3: what is known of them, and how their files get here.

    listed, or asked for ──► seen (ETag) ──► is that in cache_dir? ── yes ──► nothing is asked of S3
                                                └── no ──► downloaded ──► unpacked ──► noted down

What was seen is believed for a while. When S3 is away, what is in cache_dir is served whatever may be newer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mmserve.errors import BadRequest, BucketMissing, ModelFailed, StoreUnavailable
from mmserve.models.archive import ArchiveCache, without_suffix
from mmserve.models.cached import CachedContents, disk_full_named
from mmserve.models.s3 import S3, Stored
from mmserve.models.s3_records import CachedObject, CachedObjects
from mmserve.models.source import Fetched, Fingerprint
from mmserve.models.unpack import content_name

SCHEME = "s3://"
# What was seen is believed for so many intervals between two looks: one look may be late.
_BELIEVED = 2.0


class _Seen(NamedTuple):
    stored: Stored
    # When it was asked for (monotonic).
    at: float


@dataclass(frozen=True, slots=True)
class S3Source:
    """One object."""

    objects: Objects
    bucket: str
    key: str

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        return self.url

    @property
    def changes_at_once(self) -> bool:
        return True

    def is_near(self, contents: CachedContents) -> bool:
        return self.objects.is_near(self, contents)

    def exists(self) -> bool:
        return without_suffix(self.key) is not None and self.objects.look(self) is not None

    def fingerprint(self) -> Fingerprint:
        seen = self.objects.seen(self)
        return () if seen is None else _fingerprint(self, seen)

    def renew(self) -> bool:
        return self.objects.look(self) is not None

    def fetch(self, archives: ArchiveCache) -> Fetched:
        return self.objects.fetch(self, archives)


class Objects:
    """One object serves all threads. `interval` in seconds lies between two looks at everything."""

    def __init__(self, s3: S3, cached: CachedObjects, interval: float) -> None:
        self.s3 = s3
        self._cached = cached
        self._believed = _BELIEVED * interval
        self._seen: dict[str, _Seen] = {}
        # Buckets that were not there when they were listed last; of one key alone S3 does not tell that.
        self._missing: set[str] = set()
        self._lock = threading.Lock()

    def source(self, url: str) -> S3Source:
        bucket, _, key = url.removeprefix(SCHEME).partition("/")
        if not bucket or not key:
            raise BadRequest(f"Not the url of an object: {url}: expected s3://BUCKET/KEY.")
        return S3Source(self, bucket, key)

    def seen(self, source: S3Source) -> Stored | None:
        """As it was when S3 was asked last; None where that has never been, or it had gone."""
        seen = self._seen.get(source.url)
        return None if seen is None else seen.stored

    def is_near(self, source: S3Source, contents: CachedContents) -> bool:
        """It lies on the disk, and S3 need not be asked whether there is a newer one, or cannot be."""
        cached, seen = self._cached.known(source.url), self._seen.get(source.url)
        if cached is None or not contents.has(content_name(cached.digest)):
            return False
        return self.s3.is_away or (seen is not None and seen.stored.etag == cached.etag and self._is_believed(seen))

    def is_cached(self, source: S3Source) -> bool:
        return self._cached.get(source.url) is not None

    def cached_urls(self) -> list[str]:
        return [each.url for each in self._cached.all()]

    def look(self, source: S3Source, *, patient: bool = True) -> Stored | None:
        """What S3 says now. Raises ServingError."""
        now = time.monotonic()
        stored = self.s3.head(source.bucket, source.key, patient=patient)
        self._note(source, stored, now)
        return stored

    def list(self, bucket: str, prefix: str) -> Mapping[str, Stored]:
        """Everything there is with a prefix, by key. What is not there, and was before, has gone."""
        now = time.monotonic()
        try:
            found = self.s3.list(bucket, prefix)
        except BucketMissing:
            self._missing.add(bucket)
            raise
        self._missing.discard(bucket)
        below = f"{SCHEME}{bucket}/{prefix}"
        seen = {f"{SCHEME}{bucket}/{key}": _Seen(stored, now) for key, stored in found.items()}
        with self._lock:
            for url, each in self._seen.items():
                # What was put or looked at meanwhile, the list may have missed.
                if each.at > now or not url.startswith(below):
                    seen[url] = each
            self._seen = seen
        for cached in self._cached.all(but=seen):
            if cached.url.startswith(below) and cached.url not in self._seen:
                self._cached.remove(cached.url)
        return found

    def fetch(self, source: S3Source, archives: ArchiveCache) -> Fetched:
        cached = self._cached.get(source.url)
        current = self._current(source, cached)
        if cached is not None and (current is None or current.etag == cached.etag):
            directory = archives.unpacked_before(cached.digest)
            if directory is not None:
                return Fetched(directory, _fingerprint(source, Stored(cached.etag, cached.size)), cached.digest)
        if current is None and cached is not None:
            raise StoreUnavailable(f"{source.url} is not cached any more, and S3 does not answer.")
        with archives.temporary_directory() as temporary:
            file = temporary / "archive"
            now = time.monotonic()
            with disk_full_named(temporary.parent):
                stored = self.s3.download(source.bucket, source.key, file, archives.largest)
            self._note(source, stored, now)
            if stored is None:
                raise _gone(source)
            directory, digest = archives.unpacked(file)
        self._cached.put(CachedObject(source.url, stored.etag, stored.size, digest))
        return Fetched(directory, _fingerprint(source, stored), digest)

    def _current(self, source: S3Source, cached: CachedObject | None) -> Stored | None:
        """What is to be served; None where that is not known, and what is cached has to do."""
        seen = self._seen.get(source.url)
        if seen is not None and (self._is_believed(seen) or cached is None):
            return seen.stored
        try:
            stored = self.look(source, patient=cached is None)
        except StoreUnavailable:
            if cached is None:
                raise
            return None
        if stored is None:
            raise _gone(source)
        return stored

    def _is_believed(self, seen: _Seen) -> bool:
        return time.monotonic() < seen.at + self._believed

    def _note(self, source: S3Source, stored: Stored | None, asked_at: float) -> None:
        """What S3 has said. What is gone is not cached any more either: else it would be back when S3 is away."""
        if stored is None and source.bucket in self._missing:
            raise BucketMissing(source.bucket)
        with self._lock:
            if stored is None:
                self._seen.pop(source.url, None)
            else:
                self._seen[source.url] = _Seen(stored, asked_at)
        if stored is None:
            self._cached.remove(source.url)


def _gone(source: S3Source) -> ModelFailed:
    return ModelFailed("NoSuchKey", f"There is no object {source.url}.", status=404)


def _fingerprint(source: S3Source, stored: Stored) -> Fingerprint:
    return ((source.key, stored.etag, stored.size),)
