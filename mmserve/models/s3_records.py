"""Which object's content lies in cache_dir: one small file for each, so that it is known after a restart.

What cannot be read or written is as good as not there: the object is got once more. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

logger = logging.getLogger("mmserve.models")

_DIRECTORY = "s3"
_SUFFIX = ".json"
# Of a file's name, enough that no two urls share one.
_DIGITS = 32
# As the AWS environment says where S3 answers, the first that does.
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class CachedObject(msgspec.Struct, frozen=True):
    """What an object was when its archive, of this SHA-256, was unpacked."""

    url: str
    etag: str
    size: int
    digest: str


_decoder = msgspec.json.Decoder(CachedObject)


class CachedObjects:
    """Those of one endpoint: elsewhere, other objects have the same urls. One object serves all threads."""

    def __init__(self, cache: Path, endpoint_url: str | None = None) -> None:
        said = (endpoint_url, *map(os.environ.get, _ENDPOINT_VARIABLES))
        endpoint = next(filter(None, said), "")
        self._directory = cache / _DIRECTORY / _named(endpoint) if endpoint else cache / _DIRECTORY
        self._known: dict[str, CachedObject] = {}
        self._lock = threading.Lock()
        self._remove_leftovers()

    def known(self, url: str) -> CachedObject | None:
        """As `get`, of what was read or written before: does not block."""
        return self._known.get(url)

    def get(self, url: str) -> CachedObject | None:
        known = self._known.get(url)
        if known is not None:
            return known
        try:
            found = _decoder.decode(self._file(url).read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        if found.url != url:
            return None
        return self._known.setdefault(url, found)

    def all(self, but: Iterable[str] = ()) -> Iterator[CachedObject]:
        """Those of all urls `but` these, whose files are not read."""
        others = {self._file(url).name for url in but}
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX) and name not in others]
        except OSError:
            return
        for name in names:
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                yield _decoder.decode((self._directory / name).read_bytes())

    def put(self, cached: CachedObject) -> None:
        file = self._file(cached.url)
        temporary = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
        with self._lock:
            self._known[cached.url] = cached
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(cached))
            temporary.replace(file)
        except OSError as error:
            # It is served; only a server that is started anew has to get it once more.
            logger.warning("what is cached of %s is not remembered: %s", cached.url, error)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def remove(self, url: str) -> None:
        """There is no such object any more."""
        with self._lock:
            self._known.pop(url, None)
        try:
            self._file(url).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning("what was cached of %s is not forgotten: %s", url, error)

    def _remove_leftovers(self) -> None:
        """What was being written when a server was killed. Of another server's, the object is got once more."""
        with contextlib.suppress(OSError):
            for file in self._directory.glob(f".*{_SUFFIX}-*"):
                file.unlink(missing_ok=True)

    def _file(self, url: str) -> Path:
        return self._directory / (_named(url) + _SUFFIX)


def _named(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:_DIGITS]
