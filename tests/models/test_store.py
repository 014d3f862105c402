"""The directory as a store: what is found in it, however its links lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmserve.models.source import LocalSource
from mmserve.models.store import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    (store / "eu").mkdir(parents=True)
    (store / "eu" / "shop.tar.gz").touch()
    return store


@pytest.mark.timeout(10)
@pytest.mark.parametrize("target", [".", ".."])
def test_links_that_lead_back_up_are_not_followed(store: Path, target: str) -> None:
    (store / "empty").mkdir()
    for directory in ("eu", "empty"):
        for name in "abc":
            (store / directory / name).symlink_to(target)
    found = DirectoryStore(str(store))
    assert [name for name in found.models() if name.startswith("eu")] == ["eu/shop"]
    assert found.find("eu") is None
    assert found.find("eu/shop") == LocalSource(store / "eu" / "shop.tar.gz")
    assert found.find("empty") is not None


def test_links_to_other_directories_are_followed(store: Path, tmp_path: Path) -> None:
    (store / "eu").rename(tmp_path / "elsewhere")
    (store / "eu").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "de").symlink_to("../more")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "shop.tar.gz").touch()
    assert sorted(DirectoryStore(str(store)).models()) == ["eu/de/shop", "eu/shop"]
