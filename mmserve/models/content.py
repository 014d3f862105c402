"""Gets a model's files onto the disk and reads what they say of how to serve it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmserve.errors import ModelFailed
from mmserve.models import properties
from mmserve.models.archive import ArchiveCache, ArchiveError
from mmserve.models.model import Content, Fingerprint, Model
from mmserve.models.properties import PropertiesError, unknown_keys
from mmserve.models.settings import SettingError, model_settings
from mmserve.models.trust import Trust, UntrustedModel
from mmserve_worker.handlers import contracts
from mmserve_worker.handlers.files import is_model

logger = logging.getLogger("mmserve.models")

# What is loaded beside code and models.
_OTHER_FILES = (properties.FILE_NAME, Path(contracts.MANIFEST).name)


def prepare(model: Model, archives: ArchiveCache, trust: Trust) -> Content:
    """Blocks: reads, unpacks and parses files. Raises ModelFailed with what is wrong with them."""
    # Before anything is read: what changes from now on is newer than what is read.
    seen = fingerprint(model.source)
    try:
        directory, version = _unpacked(model.source, archives, seen)
        options = properties.read(directory)
        trust.check(directory, options, version if isinstance(version, str) else None)
        settings = model_settings(options)
    except (ArchiveError, PropertiesError, SettingError, UntrustedModel) as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name}: {error}") from error
    except OSError as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name} cannot be read: {error}") from error
    for key in unknown_keys(options):
        logger.warning("model %s: unknown key in serving.properties: %s", model.name, key)
    has_code = contracts.may_have_code(directory, options)
    return Content(directory, options, settings, has_code, seen, version, trust.codeless)


def _unpacked(source: Path, archives: ArchiveCache, seen: Fingerprint) -> tuple[Path, str | Fingerprint]:
    """Where the files are, and what is equal for equal files."""
    return (source, seen) if source.is_dir() else archives.unpacked(source)


def fingerprint(source: Path) -> Fingerprint:
    """What tells a newer archive, or newer files in a directory, from older ones; blocks. Empty if nothing is there.

    Of a directory only what is loaded counts: it is the working directory of the model's code, which may write there.
    """
    try:
        if not source.is_dir():
            return (_stamp(source.name, source.stat()),)
        return tuple(sorted(_stamps(source)))
    except OSError:
        return ()


def _stamps(directory: Path) -> Iterator[tuple[str, int, int, int]]:
    for entry in os.scandir(directory):
        if entry.name in contracts.CODE_DIRECTORIES and entry.is_dir():
            for name, inode, mtime, size in _stamps(Path(entry.path)):
                yield f"{entry.name}/{name}", inode, mtime, size
        elif entry.name in _OTHER_FILES or entry.name.endswith(".py") or is_model(Path(entry.path)):
            yield _stamp(entry.name, entry.stat())


def _stamp(name: str, status: os.stat_result) -> tuple[str, int, int, int]:
    return name, status.st_ino, status.st_mtime_ns, status.st_size
