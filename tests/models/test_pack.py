"""Packing: what goes in comes out, the same bytes every time, and the output is there whole or not at all."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmserve.models.archive import ArchiveError, UnpackLimits, unpack
from mmserve.models.pack import pack
from mmserve.models.properties import parse

OUTPUTS = ["m.tar.gz", "m.tgz", "m.tar", "m.zip"]

names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), st.binary(max_size=2000), min_size=1)


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def unpacked(archive: Path) -> Path:
    cache = archive.parent / "cache"
    cache.mkdir(exist_ok=True)
    return unpack(archive, cache, UnpackLimits())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "code").mkdir(parents=True)
    (directory / "model.joblib").write_bytes(os.urandom(5000))
    (directory / "code" / "a.py").write_text("x = 1\n")
    return directory


@pytest.mark.parametrize("name", OUTPUTS)
@given(tree=trees)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_any_tree_of_files_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, name: str, tree: dict[tuple[str, ...], bytes]
) -> None:
    place = tmp_path_factory.mktemp("place")
    source = place / "source"
    source.mkdir()
    for parts, content in tree.items():
        path = source.joinpath(*parts)
        # A name may be a file in one path and a directory in another, or too long for the file system.
        if not any(parent.is_file() for parent in path.parents) and not path.exists() and fits(parts):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (source / "model.joblib").touch()
    (source / "model.py").touch()
    pack([source], place / name)
    assert contents(unpacked(place / name)) == contents(source)


def fits(parts: tuple[str, ...]) -> bool:
    return all(len(part.encode()) < 250 for part in parts)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_same_files_give_the_same_bytes(tmp_path: Path, model: Path, name: str) -> None:
    pack([model], tmp_path / name)
    once = (tmp_path / name).read_bytes()
    copy = tmp_path / "copy"
    (copy / "code").mkdir(parents=True, mode=0o700)
    for path in ("code/a.py", "model.joblib"):
        (copy / path).write_bytes((model / path).read_bytes())
        os.utime(copy / path, (0, 1_000_000_000))
    (copy / "model.joblib").chmod(0o640)
    (tmp_path / "elsewhere").mkdir()
    pack([copy], tmp_path / "elsewhere" / name)
    assert (tmp_path / "elsewhere" / name).read_bytes() == once


def test_files_keep_their_names_and_directories_give_what_is_in_them(tmp_path: Path, model: Path) -> None:
    pack([model / "model.joblib", model / "code"], tmp_path / "m.tar")
    assert set(contents(unpacked(tmp_path / "m.tar"))) == {"model.joblib", "a.py"}


@pytest.mark.parametrize("name", ["m.tar", "m.zip"])
def test_members_are_sorted_and_belong_to_nobody(tmp_path: Path, model: Path, name: str) -> None:
    (model / "run.sh").touch(mode=0o755)
    pack([model], tmp_path / name)
    if name == "m.zip":
        with zipfile.ZipFile(tmp_path / name) as archive:
            said = [(member.filename, stat.S_IMODE(member.external_attr >> 16)) for member in archive.infolist()]
    else:
        with tarfile.open(tmp_path / name) as tar:
            said = [(member.name, member.mode) for member in tar]
            assert {(member.uid, member.gid, member.uname, member.mtime) for member in tar} == {(0, 0, "", 0)}
    assert said == [("code/a.py", 0o644), ("model.joblib", 0o644), ("run.sh", 0o755)]


def test_what_is_linked_to_is_packed(tmp_path: Path, model: Path) -> None:
    (tmp_path / "real.joblib").write_bytes(b"real")
    (model / "model.joblib").unlink()
    (model / "model.joblib").symlink_to(tmp_path / "real.joblib")
    pack([model], tmp_path / "m.tar")
    assert contents(unpacked(tmp_path / "m.tar"))["model.joblib"] == b"real"


def test_properties_are_put_into_the_archive(tmp_path: Path, model: Path) -> None:
    pack([model], tmp_path / "m.zip", {"batch_size": "8", "option.method": "predict_proba"})
    said = parse(contents(unpacked(tmp_path / "m.zip"))["serving.properties"])
    assert said == {"batch_size": "8", "option.method": "predict_proba"}


@pytest.mark.parametrize("there", ["# mine\nengine=Python\nbatch_size=2", "engine=Python\\", "engine=Python\n"])
def test_properties_win_over_those_of_the_file_that_is_there(tmp_path: Path, model: Path, there: str) -> None:
    (model / "serving.properties").write_text(there)
    pack([model], tmp_path / "m.tar.gz", {"batch_size": "8"})
    content = contents(unpacked(tmp_path / "m.tar.gz"))["serving.properties"]
    assert parse(content) == {"engine": "Python", "batch_size": "8"}
    assert content.startswith(there.encode())
    assert (model / "serving.properties").read_text() == there


def test_an_output_within_what_is_packed_is_left_out(model: Path) -> None:
    for _ in range(2):
        pack([model], model / "m.tar")
    with tarfile.open(model / "m.tar") as tar:
        assert tar.getnames() == ["code/a.py", "model.joblib"]


def test_what_cannot_be_packed_is_refused_and_an_old_output_stays(tmp_path: Path, model: Path) -> None:
    output = tmp_path / "m.tar.gz"
    output.write_bytes(b"old")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.joblib").touch()
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "fifo")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "loop").symlink_to(tmp_path)
    (tmp_path / "nothing").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for files, message in [
        ([model, tmp_path / "other"], "would both be 'model.joblib'"),
        ([tmp_path / "piped"], "fifo is not a file"),
        ([tmp_path / "linked"], "loop is a link to a directory"),
        ([tmp_path / "nothing"], "there is no file to pack"),
    ]:
        with pytest.raises(ArchiveError, match=message):
            pack(files, output)
    with pytest.raises(FileNotFoundError):
        pack([tmp_path / "missing.joblib"], output)
    with pytest.raises(ArchiveError, match=r"ends in one of \.tar\.gz, \.tgz, \.tar, \.zip"):
        pack([model], tmp_path / "m.7z")
    assert output.read_bytes() == b"old"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_cannot_be_finished_is_not_there(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        pack([model], tmp_path / "m.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
