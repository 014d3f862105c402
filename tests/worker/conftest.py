"""What tests of models made of code share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.coded import Coded, undone


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coded]:
    directory = tmp_path / "coded"
    directory.mkdir()
    with undone(monkeypatch, directory):
        yield Coded(directory)
