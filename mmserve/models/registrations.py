"""What was registered, scaled and withdrawn, on the disk, so that it holds again after a restart or a crash.

One file for each model, `NAME.json` (a slash in a name is `%2F`): models come by the thousand, and a single file would
be written anew, all of it, for every one of them; nor can a damaged file take more than one model away. A file is
replaced as a whole or not at all. Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from pathlib import Path

import msgspec

from mmserve.errors import StartError
from mmserve.models.archive import valid_name
from mmserve.models.model import Model
from mmserve.models.settings import ModelSettings, Value
from mmserve.models.source import Source

logger = logging.getLogger("mmserve.models")

# Of the format. A server that is older than a file must not guess at what it says.
VERSION = 1
# Of one file. The longest path and every setting together take a few thousand.
MAX_BYTES = 1 << 16

_SUFFIX = ".json"
# Characters of a file's name without suffixes; file systems allow 255 with those of what is written or set aside.
_LONGEST_STEM = 220
# What is being written. No model's name begins with a dot.
_TEMPORARY_PREFIX, _TEMPORARY_SUFFIX = ".", ".tmp"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be remembered of one model. The settings are ModelSettings.values().

    Without a source, the store's own model was scaled, or, if it is withdrawn, unregistered: it stays away.
    """

    name: str
    source: str | None = None
    registered_with: dict[str, Value] = {}
    scaled_to: dict[str, Value] = {}
    withdrawn: bool = False
    version: int = VERSION
    # In the files of those models alone that have one: what was written before there were any is read as ever.
    handler: str | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, model: Model, scaled_to: ModelSettings) -> Record:
        return cls(
            model.name,
            model.source.url if model.registered else None,
            model.registered_with.values(),
            scaled_to.values(),
            handler=model.handler or msgspec.UNSET,
        )

    def model(self, source: Source) -> Model:
        return Model(
            self.name,
            source,
            registered=self.source is not None,
            registered_with=ModelSettings.from_values(self.registered_with),
            handler=self.handler or "",
            scaled_to=ModelSettings.from_values(self.scaled_to),
        )

    def check(self) -> None:
        """Raises ValueError with what no user could have said."""
        _check_version(self.version)
        if not valid_name(self.name):
            raise ValueError(f"{self.name!r} is not a model name")
        if self.source is None and (self.registered_with or self.handler):
            raise ValueError("it is registered without a source")
        if self.source is not None and (not self.source or "\0" in self.source):
            raise ValueError(f"{self.source!r} is not a source")
        if self.withdrawn and (self.source is not None or self.scaled_to):
            raise ValueError("it is withdrawn, and is to be served")
        for values in (self.registered_with, self.scaled_to):
            ModelSettings.from_values(values)


def _check_version(version: int) -> None:
    if version != VERSION:
        raise ValueError(f"it is of version {version}, this server reads {VERSION}")


class _Versioned(msgspec.Struct):
    version: int


_version = msgspec.json.Decoder(_Versioned)
_record = msgspec.json.Decoder(Record)


class Registrations:
    """Different names may be saved and removed at the same time; for one name, the caller takes turns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"state_dir {directory}: {error.strerror}") from error
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise StartError(f"state_dir {directory}: may not be read and written by this server")

    def load(self) -> list[Record]:
        """All that can be read, by name. What is damaged is set aside and named in the log, and stops nothing else."""
        try:
            with os.scandir(self._directory) as found:
                entries = list(found)
        except OSError as error:
            raise StartError(f"state_dir {self._directory}: {error.strerror}") from error
        records = []
        for entry in entries:
            if entry.name.startswith(_TEMPORARY_PREFIX):
                self._remove_leftover(entry.name)
            elif entry.name.endswith(_SUFFIX):
                records += self._load(entry)
        return sorted(records, key=lambda record: record.name)

    def save(self, record: Record) -> None:
        """Returns when it is on the disk. Raises OSError if it does not get there: what was saved before holds.

        Only where the directory alone could not be written, the next start finds the one or the other (`_sync`). A
        record that could not be loaded again is a ValueError.
        """
        record.check()
        content = msgspec.json.format(msgspec.json.encode(record))
        _check_length(content)
        file = self._file(record.name)
        temporary = file.with_name(_TEMPORARY_PREFIX + file.name + _TEMPORARY_SUFFIX)
        try:
            _write(temporary, content)
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._sync()

    def remove(self, name: str) -> None:
        """As `save`, of nothing."""
        try:
            self._file(name).unlink()
        except FileNotFoundError:
            return
        self._sync()

    def _file(self, name: str) -> Path:
        return self._directory / _file_name(name)

    def _sync(self) -> None:
        """A file's new name, or that it has gone, survives the loss of power only with its directory.

        Where this fails the change is made, and may or may not outlast a crash: there is no way back from here.
        """
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _load(self, entry: os.DirEntry[str]) -> list[Record]:
        """The record of one file, or none."""
        try:
            return [_read(entry)]
        except (ValueError, RecursionError) as error:
            self._set_aside(entry.name, error)
        except OSError as error:
            # It may be as good as ever once the disk or its permissions are: it stays where it is.
            logger.error("a registration cannot be read, and its model is not served: %r: %s", entry.name, error)
        return []

    def _set_aside(self, name: str, reason: Exception) -> None:
        """For its owner to look at: it is neither read again nor overwritten."""
        names = (f"{name}.damaged-{number}" for number in itertools.count(1))
        free = next(name for name in names if not os.path.lexists(self._directory / name))
        try:
            (self._directory / name).rename(self._directory / free)
        except OSError as error:
            logger.error("a registration is damaged: %r: %s; it cannot be set aside: %s", name, reason, error)
        else:
            logger.error("a registration is damaged: %r: %s; it was set aside as %r", name, reason, free)

    def _remove_leftover(self, name: str) -> None:
        """What was being written when the server was killed. Other hidden files are not ours."""
        if name.endswith(_SUFFIX + _TEMPORARY_SUFFIX):
            try:
                (self._directory / name).unlink()
            except OSError as error:
                logger.error("what an interrupted write has left cannot be removed: %r: %s", name, error)


def _read(entry: os.DirEntry[str]) -> Record:
    """Raises ValueError, or RecursionError, if this is not what `save` writes by this name.

    With no system call that it can do without: a server reads its 10,000, in 0.4 s, before it serves.
    """
    if not entry.is_file():
        # Opening a pipe would wait for its writer.
        raise ValueError("it is not a file")
    with open(entry.path, "rb", buffering=0) as opened:
        content = opened.read(MAX_BYTES + 1)
    _check_length(content)
    _check_version(_version.decode(content).version)
    record = _record.decode(content)
    record.check()
    if _file_name(record.name) != entry.name:
        raise ValueError(f"it is of a model of another name: {record.name!r}")
    return record


def _file_name(name: str) -> str:
    """One that no other model has: no name has a `%`."""
    if "/" not in name:
        return name + _SUFFIX
    flat = name.replace("/", "%2F")
    if len(flat) > _LONGEST_STEM:
        flat = "%" + hashlib.sha256(name.encode()).hexdigest()
    return flat + _SUFFIX


def _check_length(content: bytes) -> None:
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} bytes")


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
