"""Asks S3: with short timeouts, with patience for what passes, and with an error that says what to do otherwise.

s3fs brings the connections, on an event loop in a thread of its own; it is imported when S3 is asked for the first
time, since it takes a second that servers without S3 need not wait for. Everything here blocks, and is called in
threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmserve.backoff import Backoff
from mmserve.errors import BucketMissing, ModelFailed, StoreUnavailable
from mmserve.models.destination import ArchiveError

logger = logging.getLogger("mmserve.models")

_T = TypeVar("_T")

# Seconds: S3 answers within a tenth of one.
_CONNECT_TIMEOUT = 3.0
_READ_TIMEOUT = 10.0
# Of a request and its repetitions. With these delays, 3 s of an S3 that refuses are borne.
_ATTEMPTS = 5
_BACKOFF = Backoff(first=0.2, longest=5.0)
# Seconds for which one that could not be reached at all is believed to be away, and is asked nothing.
_AWAY = Backoff(first=1.0, longest=5.0)
# As many as there are threads that may ask at one time.
_CONNECTIONS = 64
_CHUNK = 256 * 1024
# Objects that were not put in parts nor encrypted have their MD5 for an ETag.
_MD5 = re.compile(r"[0-9a-f]{32}")
# Statuses below 500 that pass: too slow, too busy.
_PASSING = {408, 429}


class Stored(NamedTuple):
    """An object as it is in S3."""

    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where something else holds than what the usual AWS environment says."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False


class _Passing(Exception):
    """It may go better the next time. `reached` is False where there was no answer at all."""

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


class _Missing(Exception):
    """S3 has nothing there."""


class S3:
    """`timeout` is what one object may take, in seconds."""

    def __init__(self, options: S3Options, timeout: float) -> None:
        self._options = options
        self._timeout = timeout
        self._lock = threading.Lock()
        self._files: Any = None
        self._running: set[concurrent.futures.Future[Any]] = set()
        self._closed = threading.Event()
        self._away_until = 0.0
        self._failures = 0
        # Told why it cannot be reached, and an empty text when it can be again; in any thread.
        self.tell: Callable[[str], None] = lambda reason: None

    @property
    def is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def close(self) -> None:
        """Gives up what is under way, which would keep the process."""
        self._closed.set()
        with self._lock:
            for future in self._running:
                future.cancel()

    def head(self, bucket: str, key: str, *, patient: bool = True) -> Stored | None:
        """What is there by this key. Not `patient`, it asks once."""

        async def ask(client: Any) -> Stored:
            said = await client.head_object(Bucket=bucket, Key=key)
            return Stored(said["ETag"].strip('"'), said["ContentLength"])

        try:
            return self._ask(f"s3://{bucket}/{key}", ask, _ATTEMPTS if patient else 1)
        except _Missing:
            return None

    def list(self, bucket: str, prefix: str) -> dict[str, Stored]:
        """Every key with this prefix."""

        async def ask(client: Any) -> dict[str, Stored]:
            found = {}
            async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for each in page.get("Contents", ()):
                    found[each["Key"]] = Stored(each["ETag"].strip('"'), each["Size"])
            return found

        try:
            return self._ask(f"s3://{bucket}/{prefix}", ask, _ATTEMPTS, "s3:ListBucket on the bucket")
        except _Missing as error:
            raise BucketMissing(bucket) from error

    def download(self, bucket: str, key: str, file: Path, largest: int) -> Stored | None:
        """What was there, all of it, is in the file; None where there is nothing any more.

        Raises ArchiveError for more than `largest` bytes.
        """
        url, digests = f"s3://{bucket}/{key}", list[str]()

        async def ask(client: Any) -> Stored:
            said = await client.get_object(Bucket=bucket, Key=key)
            body, stored = said["Body"], Stored(said["ETag"].strip('"'), said["ContentLength"])
            try:
                if stored.size > largest:
                    raise ArchiveError(f"it has {stored.size} bytes, more than it may unpack to (max_unpacked_size)")
                digest = await _save(body, file, stored, url)
            finally:
                # A connection that was not read to its end is not kept.
                body.close()
            # Stores that encrypt may have ETags of another making: what came twice the same is what is there.
            if _MD5.fullmatch(stored.etag) and digest != stored.etag and digest not in digests:
                digests.append(digest)
                raise _Passing(f"{url}: what came is not what its ETag says", reached=True)
            return stored

        try:
            return self._ask(url, ask, _ATTEMPTS)
        except _Missing:
            return None

    def _ask(
        self,
        url: str,
        ask: Callable[[Any], Coroutine[Any, Any, _T]],
        attempts: int,
        permission: str = "s3:GetObject for it, and s3:ListBucket to be told of a key that is missing",
    ) -> _T:
        """Raises _Missing, ModelFailed where it is refused, and StoreUnavailable."""
        deadline = time.monotonic() + self._timeout
        if self.is_away:
            raise StoreUnavailable(f"{url}: S3 does not answer.")
        for attempt in itertools.count(1):
            try:
                found = self._run(ask, url, permission, deadline)
            except _Passing as error:
                delay = _BACKOFF.after(attempt)
                if attempt >= attempts or time.monotonic() + delay > deadline or self._closed.wait(delay):
                    self._note(error)
                    raise StoreUnavailable(f"{error}.") from error
            else:
                self._note(None)
                return found
        raise AssertionError("counting has no end")

    def _run(self, ask: Callable[[Any], Coroutine[Any, Any, _T]], url: str, permission: str, deadline: float) -> _T:
        files = self._connected()

        async def work() -> _T:
            try:
                return await ask(await files.set_session())
            except (_Passing, ArchiveError):
                raise
            except Exception as error:  # s3fs, botocore and aiohttp have a hierarchy of errors each
                raise _translated(error, url, permission) from error

        with self._lock:
            future = asyncio.run_coroutine_threadsafe(work(), files.loop)
            self._running.add(future)
        if self._closed.is_set():
            future.cancel()
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.CancelledError:
            raise StoreUnavailable("The server is stopping.") from None
        except concurrent.futures.TimeoutError:
            future.cancel()
            message = f"{url}: not read within {self._timeout:g} seconds (model_loading_timeout)."
            raise StoreUnavailable(message) from None
        finally:
            with self._lock:
                self._running.discard(future)

    def _connected(self) -> Any:
        with self._lock:
            if self._files is None:
                from s3fs import S3FileSystem

                options = self._options
                self._files = S3FileSystem(
                    anon=options.anonymous,
                    profile=options.profile,
                    endpoint_url=options.endpoint_url,
                    client_kwargs={"region_name": options.region} if options.region else {},
                    config_kwargs={
                        "connect_timeout": _CONNECT_TIMEOUT,
                        "read_timeout": _READ_TIMEOUT,
                        "max_pool_connections": _CONNECTIONS,
                        # What passes is tried again here, where it is known for how long that helps.
                        "retries": {"total_max_attempts": 1},
                    },
                    use_listings_cache=False,
                    skip_instance_cache=True,
                )
            return self._files

    def _note(self, error: _Passing | None) -> None:
        """What cannot be reached need not be waited for by each request anew."""
        with self._lock:
            if error is None or error.reached:
                back, self._failures, self._away_until = self._failures > 0, 0, 0.0
                away = False
            else:
                self._failures += 1
                away, back = self._failures == 1, False
                self._away_until = time.monotonic() + _AWAY.after(self._failures)
        if away:
            logger.warning("S3 cannot be reached, and only what is cached is served: %s", error)
            self.tell(str(error))
        elif back:
            logger.warning("S3 answers again")
            self.tell("")


async def _save(body: Any, file: Path, stored: Stored, url: str) -> str:
    """Gives the MD5 of what was written."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with file.open("wb") as opened:
        while chunk := await _next(body, url):
            opened.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    if size != stored.size:
        raise _Passing(f"{url}: {size} bytes came of {stored.size}", reached=True)
    return digest.hexdigest()


async def _next(body: Any, url: str) -> bytes:
    """Not to be told from an error of the disk any more once it is raised through that."""
    try:
        chunk: bytes = await body.read(_CHUNK)
    except Exception as error:  # aiohttp's and botocore's: whatever it was, the rest has not come
        raise _Passing(f"{url}: cut off: {_said(error)}", reached=True) from error
    return chunk


def _translated(error: Exception, url: str, permission: str) -> Exception:
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status == 404:
            return _Missing(f"{url}: {code}")
        if status >= 500 or status in _PASSING:
            return _Passing(f"{url}: S3 answers {status} {code}", reached=True)
        if status == 403:
            message = f"S3 refuses access to {url} ({code}): the server's AWS credentials need {permission}."
            return ModelFailed("AccessDeniedException", message)
        return ModelFailed("StoreException", f"{url}: {_said(error)}.")
    if isinstance(error, HTTPClientError | ConnectionError | TimeoutError):
        return _Passing(f"{url}: {_said(error)}", reached=False)
    if isinstance(error, OSError) and not isinstance(error, BotoCoreError):
        # Of the disk.
        return error
    # Of the configuration: a profile that is not there, no credentials.
    return ModelFailed("StoreException", f"{url}: {_said(error)}. See the settings s3_* and the AWS environment.")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ").rstrip(".")
