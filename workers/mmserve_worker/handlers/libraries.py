"""Which library reads a model's file, and which module of ours serves the object that it gives.

A module for each library, imported when a model needs it: `read` gives the library's own object, `served` what
callers see of it. The library may be missing; the error then says what to install.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmserve_worker.handlers import files
from mmserve_worker.handlers.errors import LoadError
from mmserve_worker.handlers.served import Served

# What every pickle since protocol 2 begins with, and no file in a library's own format.
PICKLE = b"\x80"

_HERE = "mmserve_worker.handlers"
# Pickles, joblib's and skops' files are read by model_files itself.
_BY_SUFFIX = {
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".bst": "xgboost",
    files.XGBOOST_MODEL: "xgboost",
    ".txt": "lightgbm",
    ".onnx": "onnx",
}
# A pickle may hold any library's object.
_BY_PACKAGE = {"xgboost": "xgboost", "lightgbm": "lightgbm", "onnxruntime": "onnx"}
# The extra of mmserve that brings a library.
_EXTRAS = {"xgboost": "xgboost", "lightgbm": "lightgbm", "onnxruntime": "onnx", "skops": "skops"}


def has_own_format(file: Path) -> bool:
    if file.name == files.XGBOOST_MODEL:
        with file.open("rb") as opened:
            return opened.read(1) != PICKLE
    return file.suffix in _BY_SUFFIX


def read(file: Path, options: Mapping[str, str]) -> Any:
    return importlib.import_module(f"{_HERE}.{_BY_SUFFIX[files.kind(file)]}").read(file, options)


def served(model: Any, options: Mapping[str, str]) -> Served:
    package = str(type(model).__module__).partition(".")[0]
    answer: Served = importlib.import_module(f"{_HERE}.{_BY_PACKAGE.get(package, 'sklearn')}").served(model, options)
    return answer


def missing(file: Path, error: ModuleNotFoundError) -> LoadError:
    """What the owner of a model is told whose file needs a module that is not installed."""
    package = (error.name or "").partition(".")[0]
    hint = ""
    if package in _EXTRAS and importlib.util.find_spec("mmserve") is None:
        # An environment of the model's own has no more of mmserve than what runs in workers.
        hint = f": add {package} to the model's requirements.txt"
    elif package in _EXTRAS:
        hint = f": pip install 'mmserve[{_EXTRAS[package]}]'"
    return LoadError(f"{file.name} needs {package or error}, which is not installed{hint}")
