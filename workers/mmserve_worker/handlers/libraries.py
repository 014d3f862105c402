"""Which library reads a model's file, and which module of ours serves the object that it gives.

A module for each library, imported when a model needs it: `read` gives the library's own object, `served` what
callers see of it. The library may be missing; the error then says what to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmserve_worker.handlers.errors import LoadError
from mmserve_worker.handlers.served import Served

_HERE = "mmserve_worker.handlers"
# Pickles, joblib's and skops' files are read by model_files itself.
_BY_SUFFIX = {
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".bst": "xgboost",
    ".txt": "lightgbm",
    ".onnx": "onnx",
}
# A pickle may hold any library's object.
_BY_PACKAGE = {"xgboost": "xgboost", "lightgbm": "lightgbm", "onnxruntime": "onnx"}
# The extra of mmserve that brings a library.
_EXTRAS = {"xgboost": "xgboost", "lightgbm": "lightgbm", "onnxruntime": "onnx", "skops": "skops"}


def has_own_format(file: Path) -> bool:
    return file.suffix in _BY_SUFFIX


def read(file: Path, options: Mapping[str, str]) -> Any:
    return importlib.import_module(f"{_HERE}.{_BY_SUFFIX[file.suffix]}").read(file, options)


def served(model: Any, options: Mapping[str, str]) -> Served:
    package = str(type(model).__module__).partition(".")[0]
    answer: Served = importlib.import_module(f"{_HERE}.{_BY_PACKAGE.get(package, 'sklearn')}").served(model, options)
    return answer


def missing(file: Path, error: ModuleNotFoundError) -> LoadError:
    """What the owner of a model is told whose file needs a module that is not installed."""
    package = (error.name or "").partition(".")[0]
    hint = f": pip install 'mmserve[{_EXTRAS[package]}]'" if package in _EXTRAS else ""
    return LoadError(f"{file.name} needs {package or error}, which is not installed{hint}")
