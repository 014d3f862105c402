"""Models that several modules' tests ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.linear_model import LinearRegression

from mmserve_worker.calls import Handler
from tests.worker.coded import Coded, undone
from tests.worker.fitted import X
from tests.worker.handled import loaded


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coded]:
    directory = tmp_path / "coded"
    directory.mkdir()
    with undone(monkeypatch, directory):
        yield Coded(directory)


@pytest.fixture
def linear(tmp_path: Path) -> Handler:
    return loaded(tmp_path, LinearRegression().fit(X, X @ [1.0, 2.0, 3.0]))
