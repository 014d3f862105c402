"""Which file of a model's directory is the model.

The rule stands here once, for the worker that loads the file and for the check of an archive before it is
shipped. Nothing in here opens a file: it is standard library only, and safe on an untrusted directory.
"""

from __future__ import annotations

import os
from pathlib import Path

# In the order of preference, where one directory holds `model.joblib` and `model.pkl`.
MODEL_SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops")

# As many names as a message shows; a directory of a thousand pickles must not fill a log line.
NAMES_IN_A_MESSAGE = 5


def model_file(directory: Path) -> Path:
    """The file to load: the one called `model`, else the only one. The top level goes before what lies below.

    Raises LookupError, in a sentence for the model's owner, where there is none or where it would be a guess.
    """
    found = _model_files(directory, os.listdir(directory)) or _model_files_below(directory)
    if len(found) == 1:
        return found[0]
    named = [path for path in found if path.stem == "model"]
    if named and len({path.parent for path in named}) == 1:
        return min(named, key=lambda path: MODEL_SUFFIXES.index(path.suffix))
    endings = ", ".join(MODEL_SUFFIXES)
    if not found:
        raise LookupError(f"no model file: expected model.joblib, or one file ending in one of {endings}")
    names = ", ".join(str(path.relative_to(directory)) for path in found[:NAMES_IN_A_MESSAGE])
    more = ", ..." if len(found) > NAMES_IN_A_MESSAGE else ""
    raise LookupError(f"{len(found)} model files ({names}{more}): name the one to load model.joblib")


def _model_files_below(directory: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(directory):
        # The walk follows this very list; `__MACOSX` is the shadow tree of a zip made on macOS.
        folders[:] = sorted(folder for folder in folders if not folder.startswith((".", "__MACOSX")))
        found += _model_files(Path(parent), names)
    return found


def _model_files(directory: Path, names: list[str]) -> list[Path]:
    """Hidden files are no models: macOS puts a `._model.joblib` of attributes beside every `model.joblib`."""
    visible = (directory / name for name in sorted(names) if not name.startswith("."))
    return [path for path in visible if path.suffix in MODEL_SUFFIXES and path.is_file()]
