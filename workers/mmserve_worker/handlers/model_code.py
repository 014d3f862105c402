"""Where a model's own code is found: its directory goes first on the path, for model.py and what it imports,
and for the classes of the owner that a pickle refers to."""

from __future__ import annotations

import sys
from pathlib import Path


def make_importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
