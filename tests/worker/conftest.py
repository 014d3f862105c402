"""Models that several modules' tests ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from sklearn.linear_model import LinearRegression

from mmserve_worker import handlers
from mmserve_worker.calls import Handler, ModelSpec
from tests.worker.coded import Coded, undone
from tests.worker.djl_models import Load
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


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a model.py."""

    def load_source(source: str, file: str = "model.py", **options: str) -> Handler:
        (tmp_path / file).write_text("from djl_python import Input, Output\n" + dedent(source))
        said = {key.replace("option_", "option."): value for key, value in options.items()}
        return handlers.load(ModelSpec("the-model", str(tmp_path), said))

    with undone(monkeypatch, tmp_path):
        yield load_source
