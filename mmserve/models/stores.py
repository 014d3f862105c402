"""Which store, and which source, a url stands for."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from mmserve.errors import BadRequest
from mmserve.models.s3_objects import SCHEME, Objects
from mmserve.models.s3_store import S3Store
from mmserve.models.source import LocalSource, Source
from mmserve.models.store import DirectoryStore, Store

_FILE = "file://"


def store_of(url: str | None, objects: Objects) -> Store | None:
    """Raises StartError."""
    if url is None:
        return None
    return S3Store(url, objects) if url.startswith(SCHEME) else DirectoryStore(url)


def source_of(url: str, store: Store | None, objects: Objects) -> Source:
    """What a registration's `url` means: an object, a file: URL, an absolute path, or one relative to the store."""
    if url.startswith(SCHEME):
        return objects.source(url)
    if "://" in url and not url.startswith(_FILE):
        kinds = "a name in the store, a path, file://PATH, or s3://BUCKET/KEY"
        raise BadRequest(f"Not a url that models come from: {url}: say {kinds}.")
    path = unquote(url.removeprefix(_FILE)) if url.startswith(_FILE) else url
    if store is not None and not os.path.isabs(path):
        return store.source(path)
    return LocalSource(Path.cwd() / path)
