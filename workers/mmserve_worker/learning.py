"""What a worker had to import to load a model, as far as a template may import it before the next fork.

Only modules that were found in the environment's own library directories count: never one from a model's archive.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Set
from types import ModuleType

# More than any framework has; what a message to the front may hold.
_MAX_MODULES = 1000


def imported() -> Set[str]:
    return frozenset(sys.modules)


def library_modules(before: Set[str], model_directory: str) -> list[str]:
    """The library modules imported since `before`, in the order of their import."""
    new = [name for name in sys.modules if name not in before]
    return [name for name in new if _from_library(sys.modules[name], model_directory)][:_MAX_MODULES]


def _from_library(module: ModuleType | None, model_directory: str) -> bool:
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if spec is None or not isinstance(origin, str) or module is None or spec.name != module.__name__:
        return False
    return origin.startswith(_LIBRARIES) and not origin.startswith(model_directory.rstrip("/") + "/")


_LIBRARIES = tuple(
    {sysconfig.get_path(name).rstrip("/") + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
