"""What is read of a model's files: what it is the version of."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmserve.errors import ModelFailed
from mmserve.models.archive import ArchiveCache
from mmserve.models.content import prepare
from mmserve.models.model import Model
from mmserve.models.settings import ModelSettings
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


def test_a_batch_size_that_was_said_to_the_server_is_asked_for_of_the_models_code(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path / "cache")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "serving.properties").write_text("batch_size=2\n")
    model = Model("m", LocalSource(tmp_path / "m"), registered_with=ModelSettings(batch_size=4))
    assert prepare(model, cache, All(), {}).options["batch_size"] == "4"
    model.scaled_to = ModelSettings(batch_size=8)
    content = prepare(model, cache, All(), {})
    assert (content.options["batch_size"], content.settings.batch_size) == ("8", 2)


@pytest.mark.timeout(10)
def test_newer_files_are_told_in_a_directory_whose_links_lead_back_up(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    for name in ("code", "MAR-INF"):
        (tmp_path / name).symlink_to(".")
    before = LocalSource(tmp_path).fingerprint()
    assert before
    (tmp_path / "model.py").write_text("# newer")
    assert LocalSource(tmp_path).fingerprint() != before
