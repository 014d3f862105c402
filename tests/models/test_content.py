"""What is read of a model's files: what it is the version of."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmserve.errors import ModelFailed
from mmserve.models.archive import ArchiveCache
from mmserve.models.content import prepare
from mmserve.models.model import Model
from mmserve.models.source import LocalSource
from mmserve.models.trust import All, policy
from tests.models import archives


def test_archives_of_one_folder_are_told_apart_by_what_is_in_it(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path / "cache")
    archive = tmp_path / "m.tar.gz"

    def version_of(content: bytes) -> object:
        archives.write_tar(archive, archives.directory("m"), archives.regular("m/model.joblib", content))
        return prepare(Model("m", LocalSource(archive)), cache, All(), {}).version

    assert version_of(b"old") != version_of(b"new")
    assert version_of(b"old") == version_of(b"old")


def test_code_that_a_registration_names_is_trusted_no_more_than_what_a_file_names(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path / "cache")
    source = LocalSource(tmp_path / "m")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "serving.properties").write_text("batch_size=4\n")
    content = prepare(Model("m", source, handler="os:system"), cache, All(), {"option.handler": "of:all"})
    assert (content.options["option.handler"], content.has_code) == ("os:system", True)
    with pytest.raises(ModelFailed, match=r"option\.handler is refused: it names code"):
        prepare(Model("m", source, handler="os:system"), cache, policy("skops-only"), {})
