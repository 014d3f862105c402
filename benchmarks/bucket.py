"""An S3 in a process of its own, so that it takes nothing of the interpreter that measures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING

from benchmarks.servers import undisturbed

if TYPE_CHECKING:
    from tests.s3 import S3

NAME = "models"


class Bucket:
    """Its methods are called from the other process."""

    def __init__(self) -> None:
        # In that process alone: its libraries are large.
        from tests.s3 import S3

        self._s3: S3 = S3(NAME)
        self._away = ExitStack()

    def url(self) -> str:
        return self._s3.url

    def environment(self) -> dict[str, str]:
        """What a server needs to be let in."""
        return self._s3.environment

    def put(self, key: str, content: bytes) -> None:
        self._s3.put(key, content)

    def count(self, method: str, key: str) -> int:
        return self._s3.count(method, key)

    def leave(self) -> None:
        """Refuses connections from now on."""
        self._away.enter_context(self._s3.away())

    def come_back(self) -> None:
        self._away.close()

    def close(self) -> None:
        self.come_back()
        self._s3.__exit__(None, None, None)


class _Manager(BaseManager):
    # Added by `register`. What it makes is a proxy, which has the same methods.
    bucket: Callable[[], Bucket]


_METHODS = [name for name in vars(Bucket) if not name.startswith("_")]
_Manager.register("bucket", Bucket, exposed=_METHODS)


@contextmanager
def bucket() -> Iterator[Bucket]:
    manager = _Manager(ctx=multiprocessing.get_context("spawn"))
    manager.start()
    try:
        found = manager.bucket()
        try:
            yield found
        finally:
            with undisturbed():
                found.close()
    finally:
        with undisturbed():
            manager.shutdown()
