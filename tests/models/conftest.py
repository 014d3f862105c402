"""What the tests of registrations share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmserve.models.registrations import Registrations


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where `registrations` keeps its files."""
    return tmp_path / "state"


@pytest.fixture
def registrations(directory: Path) -> Registrations:
    return Registrations(directory)
