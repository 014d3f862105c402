"""Where a model's own code is found: its directory goes first on the path, for model.py and what it imports,
and for the classes of the owner that a pickle refers to."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from mmserve_worker.handlers.errors import LoadError


def make_importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def enter(directory: Path) -> None:
    """For code that opens files by relative paths and imports the modules beside it, as DJL Serving lets it."""
    os.chdir(directory)
    make_importable(directory)


def entry_module(directory: Path, entry_point: str) -> ModuleType:
    """The module that `option.entryPoint` names: a file of the model's directory, or what can be imported."""
    if "://" in entry_point:
        raise LoadError("option.entryPoint is a URL: code is run from the model's own directory only")
    if not entry_point.endswith(".py"):
        return importlib.import_module(entry_point)
    file = directory / entry_point
    if not file.is_file():
        raise LoadError(f"there is no {entry_point} in the model's directory")
    # Unlike "model", which the next model of the process would have as well.
    name = f"mmserve_model_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    module_spec = importlib.util.spec_from_file_location(name, file)
    if module_spec is None or module_spec.loader is None:
        raise LoadError(f"{entry_point} is no Python module")
    module = importlib.util.module_from_spec(module_spec)
    # Before it runs: pickles and dataclasses look their module up there.
    sys.modules[name] = module
    # Also by the name that its neighbours import and that pickles of its classes have, lest it run a second time.
    plain = sys.modules.setdefault(file.stem, module) is module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        if plain:
            sys.modules.pop(file.stem, None)
        raise
    return module
