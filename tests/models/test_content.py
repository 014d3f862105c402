"""What is read of a model's files: what it is the version of."""

from __future__ import annotations

from pathlib import Path

from mmserve.models.archive import ArchiveCache
from mmserve.models.content import prepare
from mmserve.models.model import Model
from mmserve.models.source import LocalSource
from mmserve.models.trust import All
from tests.models import archives


def test_archives_of_one_folder_are_told_apart_by_what_is_in_it(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path / "cache")
    archive = tmp_path / "m.tar.gz"

    def version_of(content: bytes) -> object:
        archives.write_tar(archive, archives.directory("m"), archives.regular("m/model.joblib", content))
        return prepare(Model("m", LocalSource(archive)), cache, All(), {}).version

    assert version_of(b"old") != version_of(b"new")
    assert version_of(b"old") == version_of(b"old")
