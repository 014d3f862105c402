"""Archives that are in order: what is on the disk afterwards, and what is not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import mmserve.models.unpack
from mmserve.models.archive import ArchiveError, unpack
from mmserve.models.destination import Destination
from mmserve.models.untar import Readable, untar
from tests.models import archives
from tests.models.archives import LIMITS


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz", "m.tar"])
def test_a_tar_is_unpacked_with_its_links(tmp_path: Path, cache: Path, name: str) -> None:
    archive = archives.write_tar(
        tmp_path / name,
        archives.directory("./"),
        archives.regular("./model.joblib"),
        archives.regular("code/deep/features.py", b"x = 1\n"),
        archives.symlink("latest.joblib", "./model.joblib"),
        archives.symlink("code/up.joblib", "../model.joblib"),
        archives.symlink("libs", "code/deep"),
        archives.hard_link("copy.joblib", "./model.joblib"),
        archives.regular("empty", b""),
    )
    directory = unpack(archive, cache, LIMITS)
    assert directory.parent == cache
    assert len(directory.name) == 32
    for path in ("model.joblib", "latest.joblib", "code/up.joblib", "copy.joblib"):
        assert (directory / path).read_bytes() == archives.MODEL
    assert (directory / "libs/features.py").read_bytes() == b"x = 1\n"
    assert (directory / "libs").is_symlink()
    assert (directory / "empty").read_bytes() == b""


def test_a_zip_is_unpacked(tmp_path: Path, cache: Path) -> None:
    content = os.urandom(1 << 20)
    archive = archives.write_zip(
        tmp_path / "m.zip", ("model.joblib", content), ("code/", b""), ("code/a.py", b"x = 1\n"), ("\u00e9", b"2")
    )
    directory = unpack(archive, cache, LIMITS)
    assert (directory / "model.joblib").read_bytes() == content
    assert (directory / "code/a.py").read_bytes() == b"x = 1\n"
    assert (directory / "\u00e9").read_bytes() == b"2"


def test_the_content_decides_on_the_format_not_the_name(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", archives.regular("model.joblib"))
    for name in ("m.tar.gz", "m.zip"):
        assert (unpack(archive.rename(tmp_path / name), cache, LIMITS) / "model.joblib").is_file()
        archive = tmp_path / name


def test_modes_are_those_of_files_that_nobody_else_writes(tmp_path: Path, cache: Path) -> None:
    modes = {"plain": 0o644, "open": 0o777, "setuid": 0o6755, "sticky": 0o1666, "locked": 0, "group": 0o664}
    members = [archives.regular(name, mode=mode) for name, mode in modes.items()]
    folder, _ = archives.directory("folder")
    folder.mode = 0
    mask = os.umask(0o077)
    try:
        tarred = unpack(archives.write_tar(tmp_path / "m.tar", *members, (folder, b"")), cache, LIMITS)
        zipped = unpack(
            archives.write_zip(
                tmp_path / "m.zip",
                *((archives.zip_member(name, stat.S_IFREG | mode), b"") for name, mode in modes.items() if mode),
                (archives.zip_member("folder/", stat.S_IFDIR), b""),
            ),
            cache,
            LIMITS,
        )
    finally:
        os.umask(mask)
    kept = {"plain": 0o644, "open": 0o755, "setuid": 0o755, "sticky": 0o644, "locked": 0o600, "group": 0o644}
    assert {name: stat.S_IMODE((tarred / name).stat().st_mode) for name in modes} == kept
    del kept["locked"]
    assert {name: stat.S_IMODE((zipped / name).stat().st_mode) for name in kept} == kept
    for directory in (tarred, zipped, tarred / "folder", zipped / "folder"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755


@pytest.mark.parametrize("beside", [(), ("._sklearn", "__MACOSX/sklearn/._model.joblib", ".DS_Store")])
def test_a_directory_that_was_packed_as_a_whole_is_entered(
    tmp_path: Path, cache: Path, beside: tuple[str, ...]
) -> None:
    members = [archives.regular(name) for name in ("sklearn/model.joblib", *beside)]
    archive = archives.write_tar(tmp_path / "m.tgz", *members)
    for _ in range(2):
        directory = unpack(archive, cache, LIMITS)
        assert directory.name == "sklearn"
        assert (directory / "model.joblib").is_file()


def test_a_directory_beside_a_model_is_not_entered(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(
        tmp_path / "m.tgz", archives.regular("model.joblib"), archives.regular("code/features.py")
    )
    assert unpack(archive, cache, LIMITS).parent == cache


def test_a_lone_link_to_a_directory_is_not_entered(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(
        tmp_path / "m.tgz", archives.regular(".hidden/model.joblib"), archives.symlink("seen", ".hidden")
    )
    assert unpack(archive, cache, LIMITS).parent == cache


def test_equal_archives_share_a_directory_whatever_they_are_called(tmp_path: Path, cache: Path) -> None:
    one = archives.write_tar(tmp_path / "one.tar", archives.regular("model.joblib"))
    two = archives.write_tar(tmp_path / "two.tar", archives.regular("model.joblib"))
    other = archives.write_tar(tmp_path / "other.tar", archives.regular("model.joblib", b"another"))
    assert unpack(one, cache, LIMITS) == unpack(two, cache, LIMITS) != unpack(other, cache, LIMITS)
    assert len(list(cache.iterdir())) == 2


UNPACK_ALL = """
import sys
from pathlib import Path
from mmserve.models.archive import UnpackLimits, unpack
cache, *archives = map(Path, sys.argv[1:])
sys.stdin.readline()
for archive in archives:
    print(unpack(archive, cache, UnpackLimits()))
"""


def test_processes_may_unpack_the_same_archives_at_once(tmp_path: Path, cache: Path) -> None:
    files = [
        archives.write_tar(tmp_path / f"{number}.tar", *(archives.regular(f"{number}-{i}") for i in range(40)))
        for number in range(30)
    ]
    command = [sys.executable, "-c", UNPACK_ALL, str(cache), *map(str, files)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate()[0].split() for process in processes]
    assert printed[0] == printed[1]
    assert sorted(printed[0]) == sorted(str(path) for path in cache.iterdir())
    assert all(len(list(path.iterdir())) == 40 for path in cache.iterdir())


UNPACK_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from mmserve.models.archive import UnpackLimits, unpack
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), UnpackLimits())
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_full_disk_is_an_error_of_the_system_and_nothing_is_kept(tmp_path: Path, cache: Path) -> None:
    archive = archives.write_tar(
        tmp_path / "m.tar", archives.regular("first"), archives.regular("model.joblib", bytes(2 << 20))
    )
    command = [sys.executable, "-c", UNPACK_WITH_LITTLE_ROOM, str(archive), str(cache)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == "OSError 27\n"
    assert list(cache.iterdir()) == []


def test_an_archive_that_changes_under_way_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archives.write_tar(tmp_path / "m.tar", archives.regular("model.joblib"))

    def untar_while_it_grows(stream: Readable, destination: Destination) -> None:
        untar(stream, destination)
        with archive.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(mmserve.models.unpack, "untar", untar_while_it_grows)
    with pytest.raises(ArchiveError, match="changed while it was read"):
        unpack(archive, cache, LIMITS)
    assert list(cache.iterdir()) == []


def test_unpacking_needs_no_numpy_and_no_scikit_learn() -> None:
    code = "import sys, mmserve.models.archive; print({'numpy', 'sklearn', 'joblib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
