"""Builds model archives: the same files give the same bytes, whoever packs them, wherever and whenever.

So an archive of files that did not change keeps its digest, and what is unpacked already is not unpacked again.
"""

from __future__ import annotations

import gzip
import os
import secrets
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NoReturn

from mmserve.models.archive import SUFFIXES, name_of
from mmserve.models.destination import CHUNK, ArchiveError
from mmserve.models.properties import FILE_NAME, dump

# The earliest date that a zip can name.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(
    files: Sequence[Path], output: Path, properties: Mapping[str, str] | None = None, besides: Path | None = None
) -> None:
    """Packs files by their names and directories by the files in them; of a link, what it leads to.

    `properties` go behind those of a serving.properties among the files, and so win over them. Neither the output
    nor `besides` is packed. The output appears in one step, or not at all.
    """
    if name_of(output) is None:
        raise ArchiveError(f"the name of an archive ends in one of {', '.join(SUFFIXES)}, unlike {output.name!r}")
    sources: dict[str, Path | bytes] = {**_sources(files, {output.resolve(), (besides or output).resolve()})}
    if properties:
        said = sources.get(FILE_NAME, b"")
        said = said.read_bytes() if isinstance(said, Path) else said
        # The second line break ends a line that is continued.
        sources[FILE_NAME] = said + b"\n\n" + dump(properties) if said else dump(properties)
    if not sources:
        raise ArchiveError("there is no file to pack")
    members = sorted(sources.items())
    with _written_at_once(output) as file:
        if output.name.endswith((".zip", ".mar")):
            _write_zip(file, members)
        elif output.name.endswith(".tar"):
            _write_tar(file, members)
        else:
            # Neither the name nor the time goes into the header.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
                _write_tar(compressed, members)


def _sources(files: Sequence[Path], left_out: Container[Path]) -> dict[str, Path]:
    """The files by their names in the archive."""
    sources: dict[str, Path] = {}
    for given in files:
        for name, path in _files_in(given) if given.is_dir() else [(given.name, given)]:
            if path.resolve() in left_out:
                continue
            if not stat.S_ISREG(path.stat().st_mode):
                raise ArchiveError(f"{path} is not a file")
            if name in sources:
                raise ArchiveError(f"{sources[name]} and {path} would both be {name!r}")
            sources[name] = path
    return sources


def _files_in(directory: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(directory, onerror=_fail):
        for folder in folders:
            if os.path.islink(os.path.join(parent, folder)):
                raise ArchiveError(f"{os.path.join(parent, folder)} is a link to a directory")
        for name in names:
            path = Path(parent, name)
            yield path.relative_to(directory).as_posix(), path


def _fail(error: OSError) -> NoReturn:
    raise error


def _write_tar(file: IO[bytes] | gzip.GzipFile, members: Sequence[tuple[str, Path | bytes]]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for name, source in members:
            # Its defaults are the epoch and root, for everybody.
            member = tarfile.TarInfo(name)
            with _content(source) as (content, member.size, member.mode):
                tar.addfile(member, content)


def _write_zip(file: IO[bytes], members: Sequence[tuple[str, Path | bytes]]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, source in members:
            member = zipfile.ZipInfo(name, _ZIP_EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            with _content(source) as (content, member.file_size, mode):
                member.external_attr = (stat.S_IFREG | mode) << 16
                with archive.open(member, "w") as written:
                    shutil.copyfileobj(content, written, CHUNK)


@contextmanager
def _content(source: Path | bytes) -> Iterator[tuple[IO[bytes], int, int]]:
    """The bytes, how many they are, and the mode, of which only "executable" is kept."""
    if isinstance(source, bytes):
        yield BytesIO(source), len(source), 0o644
        return
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        yield file, status.st_size, 0o755 if status.st_mode & stat.S_IXUSR else 0o644


@contextmanager
def _written_at_once(output: Path) -> Iterator[IO[bytes]]:
    temporary = output.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
