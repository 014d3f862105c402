"""Which file of a model's directory is the model.

The rule stands here once, for the worker that loads the file and for the check of an archive before it is
shipped. No more than the first bytes of a file are read: it is standard library only, and safe on an untrusted
directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

# What SageMaker's container for XGBoost calls its model, which is of any of XGBoost's formats or a pickle.
XGBOOST_MODEL = "xgboost-model"
# In the order of preference, where one directory holds `model.joblib` and `model.pkl`.
MODEL_SUFFIXES = (
    ".joblib",
    ".jl",
    ".pkl",
    ".pickle",
    ".cloudpkl",
    ".skops",
    ".onnx",
    ".ubj",
    ".xgb",
    ".bst",
    XGBOOST_MODEL,
    ".json",
    ".txt",
)
# What `option.model_format` may say, in the words of DJL Serving as far as it knows the format.
_FORMATS = {
    "joblib": (".joblib", ".jl"),
    "pickle": (".pkl", ".pickle"),
    "cloudpickle": (".cloudpkl", ".pkl", ".pickle"),
    "skops": (".skops",),
    "onnx": (".onnx",),
    "json": (".json",),
    "ubj": (".ubj",),
    "xgb": (".xgb", ".bst", XGBOOST_MODEL),
    "txt": (".txt",),
}
# Most files with these endings are something else, config.json and requirements.txt for instance: what XGBoost and
# LightGBM write begins so.
_BEGINNINGS = {
    ".json": re.compile(rb'\s*\{\s*"(learner|version)"\s*:'),
    ".txt": re.compile(rb"tree\r?\n"),
}
_BEGINNING_BYTES = 64

# As many names as a message shows; a directory of a thousand pickles must not fill a log line.
NAMES_IN_A_MESSAGE = 5


def model_file(directory: Path, options: Mapping[str, str] | None = None) -> Path:
    """The file to load: the one called `model`, else the only one. The top level goes before what lies below.

    `option.model_format` narrows the choice to the files of one format, and `option.modelName` is what the file is
    called instead of `model`. Raises LookupError, in a sentence for the model's owner, where there is none or where
    it would be a guess.
    """
    options = options or {}
    suffixes = _suffixes(options.get("option.model_format", ""))
    stem = options.get("option.modelName") or "model"
    found = _model_files(directory, os.listdir(directory), suffixes) or _model_files_below(directory, suffixes)
    if len(found) == 1:
        return found[0]
    named = [path for path in found if path.stem == stem or path.name == XGBOOST_MODEL]
    if named and len({path.parent for path in named}) == 1:
        return min(named, key=lambda path: suffixes.index(kind(path)))
    example = f"{stem}{suffixes[0]}"
    if not found:
        raise LookupError(f"no model file: expected {example}, or one file ending in one of {', '.join(suffixes)}")
    names = ", ".join(str(path.relative_to(directory)) for path in found[:NAMES_IN_A_MESSAGE])
    more = ", ..." if len(found) > NAMES_IN_A_MESSAGE else ""
    raise LookupError(f"{len(found)} model files ({names}{more}): name the one to load {example}")


def kind(file: Path) -> str:
    """Its ending, or its name where that alone says what it is."""
    return XGBOOST_MODEL if file.name == XGBOOST_MODEL else file.suffix


def is_model(file: Path, suffixes: Iterable[str] = MODEL_SUFFIXES) -> bool:
    """Hidden files are no models: macOS puts a `._model.joblib` of attributes beside every `model.joblib`."""
    if kind(file) not in suffixes or file.name.startswith(".") or not file.is_file():
        return False
    return file.suffix not in _BEGINNINGS or _begins_as_a_model(file)


def _begins_as_a_model(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return _BEGINNINGS[file.suffix].match(opened.read(_BEGINNING_BYTES)) is not None
    except OSError:
        return False


def _suffixes(model_format: str) -> tuple[str, ...]:
    if not model_format:
        return MODEL_SUFFIXES
    if model_format not in _FORMATS:
        raise LookupError(f"option.model_format is {model_format}: there is {', '.join(_FORMATS)}")
    return _FORMATS[model_format]


def _model_files_below(directory: Path, suffixes: Iterable[str]) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(directory):
        # The walk follows this very list; `__MACOSX` is the shadow tree of a zip made on macOS.
        folders[:] = sorted(folder for folder in folders if not folder.startswith((".", "__MACOSX")))
        found += _model_files(Path(parent), names, suffixes)
    return found


def _model_files(directory: Path, names: Iterable[str], suffixes: Iterable[str]) -> list[Path]:
    return [path for name in sorted(names) if is_model(path := directory / name, suffixes)]
