"""Archives made to do harm: each is refused with the member and the reason, and nothing is kept of it."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmserve.models.archive import ArchiveError, UnpackLimits, unpack
from mmserve.models.destination import CHUNK, Destination
from tests.models import archives
from tests.models.archives import LIMITS, directory, hard_link, refused, regular, special, symlink, zip_member

TarMember = tuple[tarfile.TarInfo, bytes]


def pax(member: TarMember, **records: str) -> TarMember:
    member[0].pax_headers = records
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([regular("../evil")], "'../evil' leads out of its directory with '..'"),
        ([regular("a/../../evil")], "'a/../../evil' leads out of its directory"),
        ([directory("..")], "'..' leads out of its directory"),
        ([regular("/etc/evil")], "'/etc/evil' has an absolute path"),
        ([pax(regular("x"), path="//etc/evil")], "has an absolute path"),
        ([pax(regular("x"), path="a\0b")], r"'a\x00b' has a NUL in its name"),
        ([regular("a/b/")], "'a/b/' is a file with the name of a directory"),
        ([pax(regular("x"), path="n" * 256)], "has a name that is too long"),
        ([pax(regular("x"), path="/".join(["n" * 200] * 20))], "has a name that is too long"),
        ([regular("d/" * 64 + "x")], "lies more than 64 directories deep"),
        ([symlink("l", "/etc/passwd")], "'l' is a link that leads out of the archive, to '/etc/passwd'"),
        ([symlink("l", "../../etc")], "'l' is a link that leads out"),
        ([symlink("l", "..")], "'l' is a link that leads out"),
        ([regular("d/x"), symlink("d/l", "../..")], "'d/l' is a link that leads out"),
        ([regular("a/b/x"), symlink("a/b/up", "../.."), symlink("l", "a/b/up/../y")], "'l' is a link that leads"),
        ([regular("a/b/x"), symlink("a/b/up", "../.."), symlink("l", "a/b/up/..")], "'l' is a link that leads out"),
        ([symlink("a", "b"), symlink("b", "a")], "'a' is a link that leads to nothing"),
        ([symlink("l", "nothing")], "'l' is a link that leads to nothing in the archive, to 'nothing'"),
        ([pax(symlink("l", "x"), linkpath="x\0y")], "'l' is a link to a name that cannot be"),
        ([pax(symlink("l", "x"), linkpath="n" * 5000)], "'l' is a link to a name that cannot be"),
        ([hard_link("h", "/etc/passwd")], "'h' is a link: '/etc/passwd' has an absolute path"),
        ([hard_link("h", "../x")], "'h' is a link: '../x' leads out"),
        ([hard_link("h", "later"), regular("later")], "'h' is a link to 'later', which is no file before it"),
        ([directory("d"), hard_link("h", "d")], "'h' is a link to 'd', which is no file before it"),
        ([symlink("l", "."), hard_link("h", "l")], "'h' is a link to 'l', which is no file before it"),
        ([special("dev", tarfile.CHRTYPE)], "'dev' is neither a file nor a directory nor a link"),
        ([special("dev", tarfile.BLKTYPE)], "'dev' is neither a file nor"),
        ([special("fifo", tarfile.FIFOTYPE)], "'fifo' is neither a file nor"),
        ([special("odd", b"Z")], "'odd' is neither a file nor"),
        ([symlink("l", "d"), directory("d"), regular("l/x")], "'l/x' would be written through the link 'l'"),
        ([symlink("l", "/tmp"), regular("l/x")], "'l' is a link that leads out"),
        ([directory("d"), symlink("l", "d"), regular("l")], "'l' is in the archive twice"),
        ([directory("d"), symlink("l", "d"), directory("l")], "'l' is in the archive twice"),
        ([directory("d"), symlink("d", ".")], "'d' is in the archive twice"),
        ([regular("f"), regular("f/x")], "'f/x' would be written through the file 'f'"),
        ([regular("f"), regular("./f")], "'./f' is in the archive twice"),
        ([regular("f"), pax(directory("x"), path="f/")], "'f' is in the archive twice"),
        ([regular("a//f"), regular("a/./f")], "'a/./f' is in the archive twice"),
        ([regular("f"), hard_link("f", "f")], "'f' is in the archive twice"),
        ([pax(regular("x"), **{"GNU.sparse.map": "0,10", "GNU.sparse.size": "10"})], "'x' is a sparse file"),
        ([regular(f"{number}") for number in range(100)], "'99' is one file too many, more than 100"),
        ([regular("/".join("d" * 26) + f"/{number}/x") for number in range(60)], "one file too many"),
        ([directory("./")] * 101, "one file too many"),
        ([pax(regular("x"), comment="c" * 70_000)], "has a header of more than 65536 bytes"),
        ([pax(regular("x"), comment="1" * 60_000)], "a number of more than 256 digits"),
        (
            [regular("x", bytes((1 << 24) - 100)), regular("y", bytes(100))],
            "'y' makes the archive unpack to more than 16777216 bytes",
        ),
        ([], "the archive is empty"),
    ],
)
def test_a_tar_with_such_a_member_is_refused_and_nothing_is_written(
    tmp_path: Path, members: list[TarMember], message: str
) -> None:
    before = [regular("first")] if members else []
    assert message in refused(archives.write_tar(tmp_path / "m.tar.gz", *before, *members))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["../evil"], "'../evil' leads out of its directory with '..'"),
        (["a/../../evil"], "leads out of its directory"),
        (["/etc/evil"], "'/etc/evil' has an absolute path"),
        (["a", "a"], "'a' is in the archive twice"),
        (["a", "a/"], "'a/' is in the archive twice"),
        (["a", "a/b"], "'a/b' would be written through the file 'a'"),
        ([zip_member("l", stat.S_IFLNK | 0o777)], "'l' is neither a file nor a directory"),
        ([zip_member("dev", stat.S_IFCHR)], "'dev' is neither a file nor a directory"),
        ([zip_member("pipe", stat.S_IFIFO)], "'pipe' is neither a file nor a directory"),
        ([zip_member("d", stat.S_IFDIR)], "'d' is a directory with the name of a file"),
        ([f"{number}" for number in range(101)], "is one file too many, more than 100"),
    ],
)
def test_a_zip_with_such_a_member_is_refused_and_nothing_is_written(
    tmp_path: Path, members: list[zipfile.ZipInfo | str], message: str
) -> None:
    with contextlib.ExitStack() as stack:
        if len(set(map(str, members))) < len(members):
            stack.enter_context(pytest.warns(UserWarning, match="Duplicate name"))
        archive = archives.write_zip(tmp_path / "m.zip", *((member, b"content") for member in members))
    assert message in refused(archive)


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_an_encrypted_zip_is_refused(tmp_path: Path, flag: int) -> None:
    archive = tmp_path / "m.zip"
    archive.write_bytes(archives.raw_zip(("model.joblib", b"?", 1, flag)))
    assert refused(archive) == "'model.joblib' is encrypted"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_a_compression_that_has_no_bound_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w", method) as archive:
        archive.writestr("model.joblib", bytes(1 << 20))
    assert "is compressed by another method than deflate" in refused(tmp_path / "m.zip")


def test_a_nul_in_the_name_of_a_zip_entry_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "m.zip"
    archive.write_bytes(archives.raw_zip(("model.joblib\0.txt", b"", 0, 0)))
    assert r"'model.joblib\x00.txt' has a NUL in its name" in refused(archive)


def test_zip_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "m.zip"
    zeros = archives.deflated_zeros(1)
    archive.write_bytes(archives.raw_zip(("a", zeros, 1000, 0), ("b", zeros, 1000, 0), shared=True))
    assert refused(archive) == "'a' overlaps with another"


def test_a_zip_directory_larger_than_its_entries_may_be_is_not_read(tmp_path: Path) -> None:
    archive = tmp_path / "m.zip"
    archive.write_bytes(archives.raw_zip(*((f"{number:0200}", b"", 0, 0) for number in range(5000))))
    assert "a directory of more entries than are allowed" in refused(archive, UnpackLimits(max_files=10))


@pytest.mark.parametrize("said", [10 << 30, 1 << 33])
@pytest.mark.timeout(2)
def test_ten_gigabytes_of_zeros_in_a_tar_cost_neither_disk_nor_time(tmp_path: Path, said: int) -> None:
    archive = tmp_path / "m.tar.gz"
    member, _ = regular("model.joblib")
    member.size = said
    archive.write_bytes(archives.gzipped(regular("first")[0].tobuf() + bytes(512) + member.tobuf(), 10))
    assert refused(archive, UnpackLimits()) == f"'model.joblib' makes the archive unpack to more than {8 << 30} bytes"


@pytest.mark.timeout(2)
def test_ten_gigabytes_of_zeros_behind_the_end_of_a_tar_are_not_read(tmp_path: Path) -> None:
    archive = tmp_path / "m.tar.gz"
    member, content = regular("model.joblib", bytes(512))
    archive.write_bytes(archives.gzipped(member.tobuf() + content, 10))
    assert refused(archive) == "the archive holds data behind its end"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.timeout(2)
def test_ten_gigabytes_of_headers_are_not_read(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "m.tar.gz"
    member, _ = special("header", kind)
    member.size = 10 << 30
    archive.write_bytes(archives.gzipped(member.tobuf(tarfile.GNU_FORMAT), 10))
    assert refused(archive) == "the archive has a header of more than 65536 bytes"


@pytest.mark.timeout(2)
def test_ten_gigabytes_of_zeros_in_a_zip_cost_neither_disk_nor_time(tmp_path: Path) -> None:
    archive = tmp_path / "m.zip"
    zeros = archives.deflated_zeros(4)
    said = 0xFFFF_FFFE
    archive.write_bytes(archives.raw_zip(("a", zeros, said, 0), ("b", zeros, said, 0), ("c", zeros, said, 0)))
    assert refused(archive, UnpackLimits()) == f"the archive unpacks to more than {8 << 30} bytes"


@pytest.mark.timeout(2)
def test_a_zip_that_says_less_than_it_holds_gets_no_more_than_it_says(tmp_path: Path) -> None:
    archive = tmp_path / "m.zip"
    archive.write_bytes(archives.raw_zip(("model.joblib", archives.deflated_zeros(10), 1000, 0)))
    assert "is damaged: Bad CRC-32" in refused(archive, UnpackLimits())


def test_bytes_are_counted_as_they_come_whatever_was_said(tmp_path: Path) -> None:
    def zeros() -> Iterator[bytes]:
        while True:
            yield bytes(CHUNK)

    with pytest.raises(ArchiveError, match="unpack to more than 1000000 bytes"):
        Destination(tmp_path, UnpackLimits(max_bytes=1_000_000)).add_file("model.joblib", 0o644, 0, zeros())
    assert (tmp_path / "model.joblib").stat().st_size <= 1_000_000


def test_global_records_do_not_pile_up(tmp_path: Path) -> None:
    records = {f"key{number}": "value" for number in range(101)}
    with tarfile.open(tmp_path / "m.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=records) as tar:
        tar.addfile(*regular("x")[:1], io.BytesIO(regular("x")[1]))
    assert refused(tmp_path / "m.tar") == "the archive has more than 100 global pax records"


def test_a_chain_of_headers_is_no_way_into_endless_recursion(tmp_path: Path) -> None:
    header, _ = special("chain", tarfile.XHDTYPE)
    (tmp_path / "m.tar").write_bytes(header.tobuf() * 100_000)
    assert "damaged" in refused(tmp_path / "m.tar") or "header" in refused(tmp_path / "m.tar")


segments = st.sampled_from(["..", ".", "", "a", "b", "c", "up", "\u00e9", "a\0b", "..a", "n" * 260])
names = st.lists(segments, min_size=1, max_size=5).map("/".join)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
hostile = st.lists(st.tuples(kinds, names, names), min_size=1, max_size=6)


@given(hostile)
@example([(tarfile.SYMTYPE, "a", "b/.."), (tarfile.SYMTYPE, "b", "."), (tarfile.REGTYPE, "a/c", "")])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_names_and_links_whatever_write_or_lead_out(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[bytes, str, str]]
) -> None:
    place = tmp_path_factory.mktemp("place")
    cache = place / "around" / "cache"
    cache.mkdir(parents=True)
    (cache.parent / "a").write_text("untouched")
    made = [
        pax(regular(name) if kind == tarfile.REGTYPE else special(name, kind), path=name, linkpath=target)
        for kind, name, target in members
    ]
    archive = archives.write_tar(place / "m.tar", *made)
    before = sorted(place.rglob("*"))
    with contextlib.suppress(ArchiveError):
        unpack(archive, cache, LIMITS)
    written = sorted(set(place.rglob("*")) - set(before))
    root = next(iter(cache.iterdir()), None)
    assert all(root is not None and path.is_relative_to(root) for path in written)
    assert all(root is not None and path.resolve(strict=True).is_relative_to(root) for path in written)
    assert all(path.is_dir() or path.read_bytes() == archives.MODEL for path in written)
    assert (cache.parent / "a").read_text() == "untouched"
