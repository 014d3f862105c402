"""The cache of archives: names, how often what is read and unpacked, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mmserve.models.archive
import mmserve.models.unpack
from mmserve.models.archive import ArchiveCache, ArchiveError, name_of, valid_name
from mmserve.models.untar import untar
from tests.models import archives
from tests.models.archives import LIMITS


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("churn-acme.tar.gz", "churn-acme"),
        (Path("/models/churn.v1.2.tgz"), "churn.v1.2"),
        ("a.tar", "a"),
        ("a.zip", "a"),
        ("a.tar.zip", "a.tar"),
        (".tar.gz", None),
        ("model.joblib", None),
        ("tar.gz", None),
        ("", None),
    ],
)
def test_an_archive_is_called_by_its_file_without_the_suffix(path: Path | str, name: str | None) -> None:
    assert name_of(path) == name


def test_a_model_name_fits_in_a_path_and_a_url() -> None:
    assert all(map(valid_name, ["a", "0", "churn-acme", "churn_acme.v1.2", "A" * 200, "eu/a.1/b", "/".join("a" * 512)]))
    assert all(map(valid_name, ["region=eu/shop 1", "a+b", "a (1)", "me@home, 12:00"]))
    assert not any(map(valid_name, ["", ".a", "-a", "..", " a", "a ", "_a", "a\n", "\u00e9", "a%2f", "A" * 201]))
    assert not any(map(valid_name, ["a/", "/a", "a//b", "a/../b", "a/.b", "/".join("a" * 513)]))


class Calls:
    """Counts the calls of a function that it stands in for, and may do something before each."""

    def __init__(self, function: Callable[..., object], before: Callable[[], object] = lambda: None) -> None:
        self._function = function
        self._before = before
        self.count = 0

    def __call__(self, *args: object) -> object:
        self.count += 1
        self._before()
        return self._function(*args)


def test_an_unchanged_archive_is_hashed_and_unpacked_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, unpacked = Calls(mmserve.models.unpack.digest_of), Calls(untar)
    monkeypatch.setattr(mmserve.models.archive, "digest_of", hashed)
    monkeypatch.setattr(mmserve.models.unpack, "untar", unpacked)
    archive = archives.write_tar(tmp_path / "m.tgz", archives.regular("model.joblib", b"old"))
    known = ArchiveCache(cache, LIMITS)
    assert len({known.unpacked(archive).directory for _ in range(3)}) == 1
    assert (hashed.count, unpacked.count) == (1, 1)
    # Another content, of the same size and in the same file.
    before = archive.stat()
    archives.write_tar(archive, archives.regular("model.joblib", b"new"))
    os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (known.unpacked(archive).directory / "model.joblib").read_bytes() == b"new"
    assert (hashed.count, unpacked.count) == (2, 2)


def test_an_archive_that_is_made_to_look_unchanged_has_the_digest_of_what_it_is(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(tmp_path / "a.tar", archives.regular("model.joblib", b"good"))
    known = ArchiveCache(cache, LIMITS)
    good = known.unpacked(archive)
    before = archive.stat()
    evil = archives.write_tar(tmp_path / "b.tar", archives.regular("model.joblib", b"evil")).read_bytes()
    assert len(evil) == before.st_size
    with archive.open("r+b") as file:
        file.write(evil)
    # However coarse the file system's clock is.
    while archive.stat().st_ctime_ns == before.st_ctime_ns or archive.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known.unpacked(archive).digest != good.digest


def test_no_more_digests_are_remembered_than_asked_for(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = Calls(mmserve.models.unpack.digest_of)
    monkeypatch.setattr(mmserve.models.archive, "digest_of", hashed)
    a, b, c = (archives.write_tar(tmp_path / f"{name}.tar", archives.regular(name)) for name in "abc")
    known = ArchiveCache(cache, LIMITS, remembered=2)
    for archive in (a, b, a, c, a, c):
        known.unpacked(archive)
    assert hashed.count == 3
    known.unpacked(b)
    assert hashed.count == 4


def test_what_was_removed_from_the_cache_is_unpacked_again(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", archives.regular("model.joblib"))
    known = ArchiveCache(cache, LIMITS)
    directory = known.unpacked(archive).directory
    directory.rename(tmp_path / "taken")
    assert known.unpacked(archive).directory == directory
    assert directory.is_dir()


def test_a_cache_that_was_removed_as_a_whole_is_made_anew(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", archives.regular("model.joblib"))
    known = ArchiveCache(cache, LIMITS)
    known.unpacked(archive)
    cache.rename(tmp_path / "taken")
    known.contents.look(time.monotonic())
    cache.rmdir()
    assert (known.unpacked(archive).directory / "model.joblib").is_file()


def test_threads_that_ask_for_the_same_archive_unpack_it_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = Calls(untar)
    monkeypatch.setattr(mmserve.models.unpack, "untar", unpacked)
    archive = archives.write_tar(tmp_path / "m.tgz", archives.regular("model.joblib", os.urandom(1 << 20)))
    known = ArchiveCache(cache, LIMITS)
    start = threading.Barrier(8)

    def ask() -> Path:
        start.wait()
        return known.unpacked(archive).directory

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask) for _ in range(8)]
    assert len({answer.result() for answer in asked}) == 1
    assert unpacked.count == 1


def test_threads_that_ask_for_different_archives_do_not_wait_for_each_other(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Passed by none unless both are in the middle of their archives at once.
    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(mmserve.models.unpack, "untar", Calls(untar, both.wait))
    known = ArchiveCache(cache, LIMITS)
    files = [archives.write_tar(tmp_path / f"{name}.tar", archives.regular(name)) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(known.unpacked, files))) == 2


def test_threads_that_wait_for_a_bad_archive_all_get_its_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", archives.regular("../model.joblib"))
    known = ArchiveCache(cache, LIMITS)
    start = threading.Barrier(4)

    def ask() -> Path:
        start.wait()
        return known.unpacked(archive).directory

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
    assert all(isinstance(answer.exception(), ArchiveError) for answer in asked)
    assert list(cache.iterdir()) == []
    archives.write_tar(archive, archives.regular("model.joblib"))
    assert known.unpacked(archive).directory.is_dir()


def test_a_pipe_is_not_waited_for(tmp_path: Path, cache: Path) -> None:
    os.mkfifo(tmp_path / "m.tar.gz")
    with pytest.raises(ArchiveError, match="is not a file"):
        ArchiveCache(cache, LIMITS).unpacked(tmp_path / "m.tar.gz")


def test_an_archive_that_is_not_there_is_an_error_of_the_system(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ArchiveCache(cache, LIMITS).unpacked(tmp_path / "m.tar.gz")


_FILLS = """
import sys, time
from pathlib import Path
from mmserve.models.temporary import Temporary
directory = Temporary(Path(sys.argv[1])).directory
(directory / "model.py").touch()
print(directory, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "yet" / "there"
    ArchiveCache(cache)
    kept = [".tmp-other", "0123456789abcdef0123456789abcdef"]
    for name in kept:
        (cache / name / "code").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", _FILLS, str(cache)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        ArchiveCache(cache)
        assert (left / "model.py").is_file()
        process.kill()
    ArchiveCache(cache)
    assert sorted(path.name for path in cache.iterdir()) == sorted(kept)


def test_what_this_process_is_unpacking_is_no_leftover(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", archives.regular("model.joblib"))
    monkeypatch.setattr(mmserve.models.unpack, "untar", Calls(untar, lambda: ArchiveCache(cache)))
    assert (ArchiveCache(cache).unpacked(archive).directory / "model.joblib").is_file()
