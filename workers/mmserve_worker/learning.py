"""What a worker had to import to load a model, as far as a template may import it before the next fork.

Only modules found on the path that the environment itself has count: never one from a model's archive.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import NamedTuple

# More than scikit-learn, SciPy and NumPy have together (1,700), and what one control message can hold.
_MAX_MODULES = 3000


class Baseline(NamedTuple):
    """What was imported, and from where more would have been, before a model was loaded."""

    modules: frozenset[str]
    directories: tuple[str, ...]


def baseline() -> Baseline:
    directories = tuple({entry.rstrip("/") + "/" for entry in sys.path if entry.startswith("/")})
    return Baseline(frozenset(sys.modules), directories)


def library_modules(before: Baseline, model_directory: str) -> list[str]:
    """The library modules imported since then, in the order of their import."""
    excluded = model_directory.rstrip("/") + "/"
    found = []
    for name, module in sys.modules.items():
        if name not in before.modules:
            origin = _origin(name, module)
            if origin.startswith(before.directories) and not origin.startswith(excluded):
                found.append(name)
    return found[:_MAX_MODULES]


def _origin(name: str, module: ModuleType | None) -> str:
    """The file that importing `name` has read; empty for what is not imported by that name, or from no file."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or not isinstance(spec.origin, str):
        return ""
    return spec.origin
