"""A prefix of S3 as the model store: `PREFIX/eu/shop-1.tar.gz` is the model `eu/shop-1`.

It is listed in the background, again and again. A name that is not in the list, or is asked for before there is one,
is looked for by one request of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator

from mmserve.errors import ServingError, StartError, StoreUnavailable
from mmserve.models.archive import SUFFIXES, valid_name, why_no_model, without_suffix
from mmserve.models.s3_objects import SCHEME, Objects, S3Source

logger = logging.getLogger("mmserve.models")


class S3Store:
    """Its methods but `known` and `source` block, and are called in threads."""

    def __init__(self, url: str, objects: Objects) -> None:
        self._objects = objects
        self._bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        if not self._bucket:
            raise StartError(f"The model store is not s3://BUCKET/PREFIX/: {url}")
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        # The keys of all models by name, once they were listed.
        self._keys: dict[str, str] | None = None
        # Once for all who want to know at the same time.
        self._listing = threading.Lock()
        # What has been said to be no model.
        self._ignored: set[str] = set()

    @property
    def url(self) -> str:
        return f"{SCHEME}{self._bucket}/{self._prefix}"

    def known(self, name: str) -> S3Source | None:
        keys = self._keys
        source = None if keys is None or name not in keys else self._source(keys[name])
        return None if source is None or self._objects.seen(source) is None else source

    def find(self, name: str) -> S3Source | None:
        if not valid_name(name):
            return None
        known, keys = self.known(name), self._keys
        if known is not None:
            return known
        # That of SageMaker's archives alone, once the list would have the others.
        suffixes = SUFFIXES if keys is None else SUFFIXES[:1]
        sources = [self._source(self._prefix + name + suffix) for suffix in suffixes]
        cached = next((source for source in sources if self._objects.is_cached(source)), None)
        try:
            return next(
                (each for each in sources if self._objects.look(each, patient=cached is None) is not None), None
            )
        except StoreUnavailable:
            if cached is None:
                raise
            return cached

    def recall(self, name: str) -> S3Source | None:
        if not valid_name(name):
            return None
        sources = [self._source(self._prefix + name + suffix) for suffix in SUFFIXES]
        return next((source for source in sources if self._objects.is_cached(source)), sources[0])

    def models(self) -> dict[str, str]:
        """Of an S3 that cannot be listed, what is cached."""
        keys = self._keys
        if keys is None:
            try:
                keys = self.check(again=False)
            except ServingError:
                urls = (url for url in self._objects.cached_urls() if url.startswith(self.url))
                cached = (url.removeprefix(f"{SCHEME}{self._bucket}/") for url in urls)
                keys = {name: key for key, name in self._named(cached)}
        return {name: f"{SCHEME}{self._bucket}/{key}" for name, key in sorted(keys.items())}

    def count(self) -> int | None:
        return None if self._keys is None else len(self._keys)

    def source(self, relative: str) -> S3Source:
        return self._source(self._prefix + relative)

    def check(self, *, again: bool = True) -> dict[str, str]:
        """Lists everything; not `again`, unless it was listed before. Raises ServingError."""
        with self._listing:
            if self._keys is None or again:
                found = self._objects.list(self._bucket, self._prefix)
                keys: dict[str, str] = {}
                # Where there are several archives by one name, the first of the suffixes counts, as for `find`.
                for key, name in sorted(self._named(found), key=lambda each: _order(each[0])):
                    keys.setdefault(name, key)
                self._keys = keys
            return self._keys

    def covers(self, source: S3Source) -> bool:
        """Whether `check` tells what becomes of it."""
        return source.url.startswith(self.url)

    def _source(self, key: str) -> S3Source:
        return S3Source(self._objects, self._bucket, key)

    def _named(self, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Those that can be models, each with its name."""
        for key in keys:
            name = without_suffix(key.removeprefix(self._prefix))
            if name is not None and valid_name(name):
                yield key, name
            elif not key.endswith("/") and key not in self._ignored:
                # One that ends so stands for a folder.
                self._ignored.add(key)
                logger.warning("in the model store, but no model by its name: %r: %s", key, why_no_model(name))


def _order(key: str) -> int:
    return next(place for place, suffix in enumerate(SUFFIXES) if key.endswith(suffix))
