"""Which models' files may be loaded at all: all of them, those that cannot run code, or those that are on a list.

Decided in the front for every model, wherever it comes from and whoever registers it, before anything of it is
unpickled or imported. What a worker does to keep to it is in mmserve_worker/codeless.py.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from mmserve.errors import StartError
from mmserve_worker.handlers.files import XGBOOST_MODEL

SKOPS_ONLY = "skops-only"
_LIST_PREFIX = "sha256:"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
# Of a list of digests: half a million of them.
_MAX_BYTES = 1 << 25

# What loading may run: pickles and what is made of them, Python in each form, native code. By the end of the name.
_PICKLES = (
    ".joblib",
    ".jl",
    ".pkl",
    ".pickle",
    ".cloudpkl",
    ".cloudpickle",
    ".dill",
    ".xgb",
    ".bst",
    ".pt",
    ".pth",
    XGBOOST_MODEL,
)
_CODE = (*_PICKLES, ".mar", ".py", ".pyc", ".pyd", ".pyx", ".so", ".whl", ".egg")
_NAMES = {"requirements.txt": "it installs packages", "MAR-INF": "its handler is code"}
# Of serving.properties: what runs code, what makes a library load some, and what declares types to be harmless.
_KEYS = {
    "option.entryPoint": "it names code",
    "option.handler": "it names code",
    "option.env": "variables can make libraries load code",
    "option.skops_trusted_types": "it is for the server to say, not for the model (model_properties)",
}
# Entry points that are mmserve's own.
_BUILT_IN = ("djl_python.sklearn_handler", "djl_python.xgboost_handler")


class UntrustedModel(ValueError):
    """A model that the policy does not permit: what of it, and why."""


class Trust(Protocol):
    """One policy. `codeless` is whether workers are to refuse pickles and code as well."""

    codeless: bool

    def check(self, directory: Path, options: Mapping[str, str], digest: str | None) -> None:
        """Blocks. Raises UntrustedModel. `options` are what the model itself says; no digest is for a directory."""


class All:
    codeless = False

    def check(self, directory: Path, options: Mapping[str, str], digest: str | None) -> None:
        """Everything is trusted."""


class SkopsOnly:
    codeless = True

    def check(self, directory: Path, options: Mapping[str, str], digest: str | None) -> None:
        for what, reason in (*_in_options(options), *_in_files(directory)):
            raise UntrustedModel(f"trust is {SKOPS_ONLY}, and {what} is refused: {reason}")


def _in_options(options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, reason in _KEYS.items():
        if key in options and options[key] not in _BUILT_IN:
            yield key, reason


def _in_files(directory: Path) -> Iterator[tuple[str, str]]:
    for parent, folders, names in os.walk(directory):
        for name in sorted((*folders, *names)):
            lower = name.lower()
            reason = next((said for refused, said in _NAMES.items() if refused.lower() == lower), None)
            if reason is None and lower.endswith(_CODE):
                reason = "loading it may run code"
            if reason is None and name in folders and os.path.islink(os.path.join(parent, name)):
                # It is not walked through, but what lies there would be found by its name.
                reason = "it is a link to a directory"
            if reason is not None:
                yield str(Path(parent, name).relative_to(directory)), reason


class Digests:
    """Those archives whose SHA-256 is in a file, which is read again when it has changed. Used in threads."""

    codeless = False

    def __init__(self, file: str) -> None:
        self._file = Path(file).absolute()
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._digests: frozenset[str] = frozenset()
        try:
            self._listed()
        except UntrustedModel as error:
            raise StartError(f"trust: {error}") from error

    def check(self, directory: Path, options: Mapping[str, str], digest: str | None) -> None:
        if digest is None:
            raise UntrustedModel("trust is a list of archives' digests, and a directory has none: make it an archive")
        if digest not in self._listed():
            raise UntrustedModel(f"the SHA-256 of the archive, {digest}, is not in {self._file}")

    def _listed(self) -> frozenset[str]:
        """What cannot be read trusts nobody: half a list is not what was meant."""
        with self._lock:
            try:
                with self._file.open("rb") as opened:
                    status = os.fstat(opened.fileno())
                    seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                    if seen != self._seen:
                        self._digests = frozenset(self._read(opened.read(_MAX_BYTES + 1)))
                        self._seen = seen
            except OSError as error:
                self._seen = None
                raise UntrustedModel(f"{self._file} cannot be read: {error.strerror}") from error
            return self._digests

    def _read(self, content: bytes) -> Iterator[str]:
        """The first word of each line: what sha256sum writes is such a list."""
        if len(content) > _MAX_BYTES:
            raise UntrustedModel(f"{self._file} has more than {_MAX_BYTES} bytes")
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            words = line.partition("#")[0].split(maxsplit=1)
            if words and not _DIGEST.fullmatch(words[0]):
                raise UntrustedModel(f"{self._file}, line {number}: not a SHA-256 of 64 hexadecimal digits")
            yield from (word.lower() for word in words[:1])


def policy(said: str) -> Trust:
    """What the setting means. Raises StartError."""
    if said == "all":
        return All()
    if said == SKOPS_ONLY:
        return SkopsOnly()
    if said.startswith(_LIST_PREFIX) and len(said) > len(_LIST_PREFIX):
        return Digests(said.removeprefix(_LIST_PREFIX))
    raise StartError(f"trust is {said!r}, expected all, {SKOPS_ONLY} or {_LIST_PREFIX}FILE")
