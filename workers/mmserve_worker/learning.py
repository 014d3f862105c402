"""What a worker had to import to load a model, as far as a template may import it before the next fork.

Only modules found on the path that the environment itself has count: never one from a model's archive.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import NamedTuple

# More than scikit-learn, SciPy and NumPy have together (1,700), and what one control message can hold.
_MAX_MODULES = 3000


class Baseline(NamedTuple):
    """How much was imported, and from where more would have been, before a model was loaded."""

    modules: int
    directories: tuple[str, ...]


def baseline() -> Baseline:
    directories = tuple({entry.rstrip("/") + "/" for entry in sys.path if entry.startswith("/")})
    return Baseline(len(sys.modules), directories)


def library_modules(before: Baseline, model_directory: str) -> list[str]:
    """The library modules imported since then, in the order of their import."""
    excluded = model_directory.rstrip("/") + "/"
    grown = len(sys.modules) - before.modules
    found = []
    # From the newest on, and no further: to look at every module is to copy its pages (5 MB a worker, measured).
    for name in list(islice(reversed(sys.modules), max(grown, 0)))[::-1]:
        origin = _origin(name)
        if origin.startswith(before.directories) and not origin.startswith(excluded):
            found.append(name)
    return found[:_MAX_MODULES]


def _origin(name: str) -> str:
    """The file that importing `name` has read; empty for what is not imported by that name, or from no file."""
    try:
        spec = sys.modules[name].__spec__
        found = spec.origin if spec is not None and spec.name == name else None
    except Exception:  # anything may stand in sys.modules: None, objects that import something when they are looked at
        return ""
    return found if isinstance(found, str) else ""
