"""A model's requirements.txt: what it asks for, and whether the server's own environment has it already.

    numpy>=1.26                 satisfied by the server's own environment, most often
    scikit-learn==1.5.2         asks for an environment of the model's own
    requirements/*.whl          wheels in the archive that such an environment may be made of

Nothing is installed here. Equal content has an equal key, whatever models it comes from.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

logger = logging.getLogger("mmserve.models")

FILE_NAME = "requirements.txt"
# SageMaker's archives have theirs beside the code.
_PLACES = ("", "code")
_WHEELS = "requirements"
# What every environment has beside what its models ask for: workers need NumPy, and a requirements.txt names what a
# container of SageMaker or DJL Serving does not have already, where scikit-learn is taken for granted.
COMPANIONS = ("numpy", "joblib", "scikit-learn")

# What is done about a requirements.txt that the server's own environment does not satisfy.
BUILD, REFUSE, IGNORE = "build", "refuse", "ignore"

# Counted up when environments of the same content are built in another way.
_FORMAT = 1
# Larger than any file written by hand.
_MAX_BYTES = 1 << 20
# 128 bits of SHA-256.
_KEY_LENGTH = 32
_OPTIONS = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
}
_OPTION = re.compile(r"(-[a-zA-Z]|--[a-z-]+)(?:[ \t=]+|(?<=-[a-zA-Z])(?=\S)|$)(.*)")
_HASHES = re.compile(r"((?:\s+--hash[ \t=]+\S+)*)\s*$")
_COMMENT = re.compile(r"(^|\s+)#.*")
_REMOTE = re.compile(r"https?://", re.IGNORECASE)
# Before the host of a URL.
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]+@")


class RequirementsError(ValueError):
    """A requirements.txt that cannot be followed, and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(_without_credentials(message))


@dataclass(frozen=True, slots=True)
class Requirements:
    """What an environment of its own has to be made of."""

    key: str
    # What the server's environment does not have.
    missing: tuple[str, ...]
    # In one order and spelling.
    lines: tuple[str, ...]
    # A directory of wheels that were in the archive.
    wheels: Path | None

    @property
    def shown(self) -> tuple[str, ...]:
        """The lines for whoever is not the models' owner."""
        return tuple(map(_without_credentials, self.lines))


class _Understood(NamedTuple):
    """`missing` is what the server's own environment does not have."""

    lines: tuple[str, ...]
    missing: tuple[str, ...]


def needed(directory: Path, environments: str) -> Requirements | None:
    """Blocks. What a model has to have an environment of its own for, as far as the setting allows."""
    if environments == BUILD:
        return read(directory)
    try:
        requirements = read(directory)
    except RequirementsError as error:
        if environments == REFUSE:
            raise
        _warn_once(f"which cannot be followed anyway: {error}")
        return None
    if requirements is None:
        return None
    missing = _without_credentials(", ".join(requirements.missing))
    if environments == REFUSE:
        raise RequirementsError(
            f"the server's environment does not have what {FILE_NAME} asks for ({missing}), and no other is made here "
            "(the setting `environments`): install it there, or start the server with environments=build"
        )
    _warn_once(f"which asks for what is not there: {missing}")
    return None


# Not at each cold start of each of a thousand models with the same file.
@lru_cache(maxsize=1000)
def _warn_once(which: str) -> None:
    logger.warning("a %s is ignored, %s", FILE_NAME, which)


def read(directory: Path) -> Requirements | None:
    """Blocks. What the model in a directory needs, or None where the server's environment has all of it."""
    for place in _PLACES:
        content = _content(directory / place / FILE_NAME)
        if content is None:
            continue
        understood = _understood(content)
        if not understood.missing:
            return None
        wheels = directory / place / _WHEELS
        files = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
        return Requirements(
            _key(understood.lines, files), understood.missing, understood.lines, wheels if files else None
        )
    return None


def _without_credentials(text: str) -> str:
    """Callers of a model are told why it does not load, and URLs of private indexes have passwords in them."""
    return _CREDENTIALS.sub("***@", text)


def _content(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if len(content) > _MAX_BYTES:
        raise RequirementsError(f"{FILE_NAME} has more than {_MAX_BYTES} bytes")
    return content


# Asked at each cold start of a thousand models with the same file; to look for a package takes a millisecond.
@lru_cache(maxsize=1000)
def _understood(content: bytes) -> _Understood:
    lines, missing = set(), []
    for line in _logical_lines(content):
        if "${" in line:
            # uv would put in what its environment says, which has the credentials of package indexes.
            raise RequirementsError(f"{line!r} names a variable of the environment, and none is put in")
        if line.startswith("-"):
            lines.add(_option(line))
            continue
        hashes = _HASHES.search(line)
        assert hashes is not None  # It matches the empty string, too.
        requirement = _requirement(line[: hashes.start()].strip())
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        requirement.marker = None
        lines.add(" ".join([str(requirement), *hashes[0].split()]))
        if hashes[0] or not _is_here(requirement):
            missing.append(str(requirement))
    return _Understood(tuple(sorted(lines)), tuple(missing))


def _logical_lines(content: bytes) -> Iterator[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequirementsError(f"{FILE_NAME} is not UTF-8: {error}") from error
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        stripped = _COMMENT.sub("", line).strip()
        if stripped:
            yield stripped


def _option(line: str) -> str:
    match = _OPTION.fullmatch(line)
    name, value = (match[1], match[2].strip()) if match is not None else (line, "")
    if name in ("-r", "--requirement", "-c", "--constraint"):
        raise RequirementsError(f"{line!r} names another file: its lines belong into {FILE_NAME}")
    if name not in _OPTIONS:
        raise RequirementsError(f"{line!r} is not followed: only requirements, {', '.join(sorted(_OPTIONS))} are")
    if _REMOTE.match(value) is None:
        raise RequirementsError(f"{line!r} is no http or https URL; wheels in {_WHEELS}/ are found without it")
    return f"{_OPTIONS[name]} {value}"


def _requirement(text: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise RequirementsError(
            f"{text!r} is no requirement by name ({str(error).splitlines()[0]}); a wheel goes into {_WHEELS}/"
        ) from error
    url = requirement.url
    if url is not None and (_REMOTE.match(url) is None or not url.partition("#")[0].endswith(".whl")):
        raise RequirementsError(f"{text!r} is not the URL of a wheel, and nothing is built from source")
    requirement.name = canonicalize_name(requirement.name)
    return requirement


def _is_here(requirement: Requirement, seen: frozenset[str] = frozenset()) -> bool:
    """Whether the server's own environment has it, with the extras that are asked for."""
    if requirement.url is not None:
        return False
    try:
        found = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(found.version, prereleases=True):
        return False
    if not requirement.extras or str(requirement) in seen:
        return True
    known = {canonicalize_name(name) for name in found.metadata.get_all("Provides-Extra") or ()}
    wanted = {canonicalize_name(extra) for extra in requirement.extras}
    needed = (Requirement(text) for text in found.requires or ())
    return wanted <= known and all(
        _is_here(one, seen | {str(requirement)})
        for one in needed
        if one.marker is not None and any(one.marker.evaluate({"extra": extra}) for extra in wanted)
    )


def _key(lines: tuple[str, ...], wheels: list[Path]) -> str:
    parts = [_server(), *lines]
    for wheel in wheels:
        status = wheel.stat()
        parts.append(f"{wheel.name} {_digest(wheel, status.st_ino, status.st_size, status.st_mtime_ns)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_LENGTH]


@cache
def _server() -> str:
    """What environments of equal content differ in between servers."""
    versions = {name: _version(name) for name in COMPANIONS}
    return f"{_FORMAT} {sys.version} {sys.base_prefix} {platform.machine()} {versions}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# As long as all of this is the same, the file is: a large wheel is read once, not at each cold start.
@lru_cache(maxsize=10_000)
def _digest(wheel: Path, inode: int, size: int, mtime_ns: int) -> str:
    with wheel.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
