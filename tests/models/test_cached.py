"""What lies in the cache: who goes first, and who stays whatever the bound is."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

import mmserve.models.unpack
from mmserve.errors import DiskFull
from mmserve.models.archive import ArchiveCache
from mmserve.models.destination import Destination
from mmserve.models.untar import Readable, untar
from tests.models import archives
from tests.models.archives import LIMITS

# Bytes of each content, beside which what a file system adds is little.
_SIZE = 100_000
# The bound in most tests: two fit, three do not.
_TWO = int(_SIZE * 2.6)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


def unpacked(known: ArchiveCache, place: Path, name: str) -> Path:
    """The directory of a content that is like no other."""
    archive = place / f"{name}.tar"
    if not archive.exists():
        archives.write_tar(archive, archives.regular("model.joblib", name.encode() * (_SIZE // len(name))))
    return known.unpacked(archive).directory


def age(cache: Path, *directories: Path) -> None:
    """They were used an hour ago, in this order."""
    now = time.time()
    for seconds, directory in enumerate(directories):
        os.utime(cache / directory.name, (now, now - 3600 + seconds))


def soon() -> float:
    """Later than all that was asked for until now."""
    return time.monotonic() + 1e-6


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, cache: Path) -> None:
    known = ArchiveCache(cache, LIMITS, size=_TWO)
    a, b, c = (unpacked(known, tmp_path, name) for name in "abc")
    unpacked(known, tmp_path, "a")
    tidied = known.contents.tidy([], soon())
    assert (a.is_dir(), b.is_dir(), c.is_dir()) == (True, False, True)
    assert sorted(cache.iterdir()) == sorted([a, c])
    assert (tidied.contents, tidied.bound) == (1, _TWO)
    assert tidied.freed >= _SIZE
    assert 2 * _SIZE <= tidied.size == known.contents.size <= _TWO
    assert unpacked(known, tmp_path, "b") == b


def test_what_is_in_use_stays_though_it_is_too_much(tmp_path: Path, cache: Path) -> None:
    known = ArchiveCache(cache, LIMITS, size=1)
    archives.write_tar(tmp_path / "wrapped.tar", archives.regular("churn/model.joblib", bytes(_SIZE)))
    wrapped = known.unpacked(tmp_path / "wrapped.tar").directory
    assert wrapped.name == "churn"
    idle = unpacked(known, tmp_path, "idle")
    tidied = known.contents.tidy([wrapped, tmp_path / "a-directory-of-the-store"], soon())
    assert wrapped.is_dir()
    assert not idle.exists()
    assert tidied.size > tidied.bound
    assert known.contents.tidy([], soon()).size == 0


def test_what_was_asked_for_and_is_not_in_use_yet_stays(tmp_path: Path, cache: Path) -> None:
    known = ArchiveCache(cache, LIMITS, size=1)
    before = unpacked(known, tmp_path, "before")
    since = soon()
    while time.monotonic() < since:
        pass
    # The second one is there already: to ask for it is enough.
    unpacked(known, tmp_path, "before")
    new = unpacked(known, tmp_path, "new")
    assert known.contents.tidy([], since).contents == 0
    assert before.is_dir()
    assert new.is_dir()


def test_the_order_survives_a_restart(tmp_path: Path, cache: Path) -> None:
    before = ArchiveCache(cache, LIMITS)
    a, b, c = (unpacked(before, tmp_path, name) for name in "abc")
    age(cache, b, c, a)
    known = ArchiveCache(cache, LIMITS, size=_TWO)
    known.contents.look(soon())
    assert known.contents.size == before.contents.size
    assert known.contents.tidy([], soon()).contents == 1
    assert sorted(cache.iterdir()) == sorted([a, c])


def test_what_this_server_uses_comes_before_what_an_earlier_one_has_left(tmp_path: Path, cache: Path) -> None:
    before = ArchiveCache(cache, LIMITS)
    a, b, c = (unpacked(before, tmp_path, name) for name in "abc")
    age(cache, a, b, c)
    known = ArchiveCache(cache, LIMITS, size=_TWO)
    unpacked(known, tmp_path, "a")
    known.contents.look(soon())
    known.contents.tidy([], soon())
    assert sorted(cache.iterdir()) == sorted([a, c])


def test_what_another_server_has_used_of_late_stays(tmp_path: Path, cache: Path) -> None:
    mine, other = (ArchiveCache(cache, LIMITS, size=1) for _ in range(2))
    a, b = unpacked(mine, tmp_path, "a"), unpacked(mine, tmp_path, "b")
    for directory in (a, b):
        mine.contents.tidy([directory], 0.0)
    # As if it had been a while ago that it was used here.
    earlier = time.time() - 100
    for content in mine.contents._contents.values():
        content.noted_at = earlier
    os.utime(b, (earlier, earlier))
    unpacked(other, tmp_path, "a")
    mine.contents.tidy([], soon())
    assert (a.is_dir(), b.is_dir()) == (True, False)
    age(cache, a)
    mine.contents.tidy([], soon())
    assert not a.exists()


def test_what_somebody_else_has_removed_is_not_counted_any_more(tmp_path: Path, cache: Path) -> None:
    mine, other = ArchiveCache(cache, LIMITS), ArchiveCache(cache, LIMITS, size=1)
    a = unpacked(mine, tmp_path, "a")
    age(cache, a)
    other.contents.look(soon())
    assert other.contents.tidy([], soon()).contents == 1
    mine.contents.look(0.0)
    assert mine.contents.size >= _SIZE
    mine.contents.look(soon())
    assert mine.contents.size == 0


def test_without_a_bound_it_follows_what_is_free(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ArchiveCache(cache, LIMITS)
    directories = [unpacked(known, tmp_path, name) for name in "abc"]
    assert known.contents.tidy([], soon()).contents == 0
    real = os.statvfs(cache)
    full = os.statvfs_result((real.f_bsize, real.f_frsize, real.f_blocks, 0, 0, *tuple(real)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert known.contents.tidy([], soon()).contents == 1
    assert [directory.is_dir() for directory in directories] == [False, True, True]


def test_a_full_disk_names_the_directory_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untar_until_it_is_full(stream: Readable, destination: Destination) -> None:
        untar(stream, destination)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mmserve.models.unpack, "untar", untar_until_it_is_full)
    known = ArchiveCache(cache, LIMITS)
    with pytest.raises(DiskFull, match=str(cache)):
        unpacked(known, tmp_path, "a")
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert unpacked(known, tmp_path, "a").is_dir()
