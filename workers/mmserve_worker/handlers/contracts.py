"""Which contract a model's directory follows, by what it holds. Code is read for that, and none of it is run.

    the first that applies                                   is served as
    option.handler is `module:function` or `module.py`       Multi Model Server's handler
    option.entryPoint                                        built-in handler, or by the functions of that file
    MAR-INF/MANIFEST.json with a handler                     Multi Model Server's handler
    model.py                                                 by its functions, DJL's where it has none of these
    inference.py, code/inference.py                          by its functions
    nothing of these                                         a model file

A file is served by the functions at its top: `handle(data, context)` is Multi Model Server's, `handle(inputs)` DJL's,
and `model_fn`, `transform_fn`, `input_fn`, `predict_fn`, `output_fn` are SageMaker's. Standard library only, since the
front asks as well.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

MANIFEST = "MAR-INF/MANIFEST.json"
# Of the options: what an archive's configuration says, as JSON.
MODEL_CONFIG = "option.model_yaml_config"
# Of a manifest: more than any that an archiver writes.
_MAX_MANIFEST_BYTES = 1 << 20
INFERENCE_FILES = ("inference.py", "code/inference.py")
# Of a model's directory, beside its top.
CODE_DIRECTORIES = ("code", "MAR-INF")
CODE_FILES = ("model.py", *INFERENCE_FILES, MANIFEST)
# Without any of these at its top, a directory has no code.
_CODE_IS_UNDER = frozenset(name.partition("/")[0] for name in CODE_FILES)
SAGEMAKER_FUNCTIONS = frozenset({"model_fn", "transform_fn", "input_fn", "predict_fn", "output_fn"})


class Contract(Enum):
    DJL = "mmserve_worker.handlers.djl"
    SAGEMAKER = "mmserve_worker.handlers.sagemaker"
    MMS = "mmserve_worker.handlers.mms"
    MODEL_FILE = "mmserve_worker.handlers.rows"


# What `option.entryPoint` may name beside a model's own code, as serving.properties files of other servers do.
_BUILT_IN = {
    "djl_python.sklearn_handler": Contract.MODEL_FILE,
    "djl_python.xgboost_handler": Contract.MODEL_FILE,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """`options` are what was found out, as the owner could have said it."""

    contract: Contract
    options: Mapping[str, str] = field(default_factory=dict)


_MODEL_FILE = Decision(Contract.MODEL_FILE)


class ManifestError(ValueError):
    """A MANIFEST.json that cannot be meant, in a sentence for the model's owner."""


def may_have_code(directory: Path, options: Mapping[str, str]) -> bool:
    """Without reading any of it: whether somebody else's contract may hold."""
    named = options.get("option.entryPoint", "") not in ("", *_BUILT_IN) or "option.handler" in options
    return named or any((directory / name).is_file() for name in CODE_FILES)


def decide(directory: Path, options: Mapping[str, str]) -> Decision:
    """Raises ManifestError, and OSError for a directory that cannot be read."""
    handler = options.get("option.handler", "")
    if not handler and "option.entryPoint" not in options and _CODE_IS_UNDER.isdisjoint(os.listdir(directory)):
        # Nearly all models. To look for each of the files costs a worker 0.25 MB of pages that it shared before.
        return _MODEL_FILE
    if _names_module(directory, options, handler):
        return Decision(Contract.MMS)
    if entry_point := options.get("option.entryPoint"):
        if entry_point not in _BUILT_IN:
            return _by_functions(directory, entry_point, options) or Decision(Contract.DJL)
        # DJL's own handlers take SageMaker's functions from there as well.
        said = _by_functions(directory, "model.py", options)
        if said and said.contract is Contract.SAGEMAKER:
            return said
        # And functions that are decorated as parts of them.
        return Decision(Contract.DJL if (directory / "model.py").is_file() else _BUILT_IN[entry_point])
    if handler := manifest(directory).get("model", {}).get("handler", ""):
        return Decision(Contract.MMS, {"option.handler": handler})
    if (directory / "model.py").is_file():
        return _by_functions(directory, "model.py", options) or Decision(Contract.DJL)
    found = (_by_functions(directory, name, options) for name in INFERENCE_FILES if (directory / name).is_file())
    return next(filter(None, found), _MODEL_FILE)


def manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a model archive; empty where there is none."""
    try:
        with (directory / MANIFEST).open("rb") as file:
            content = file.read(_MAX_MANIFEST_BYTES + 1)
        if len(content) > _MAX_MANIFEST_BYTES:
            raise ManifestError(f"{MANIFEST} has more than {_MAX_MANIFEST_BYTES} bytes")
        said = json.loads(content)
    except FileNotFoundError:
        return {}
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise ManifestError(f"{MANIFEST} is not an object")
    model = said.get("model", {})
    if not isinstance(model, dict) or not isinstance(model.get("handler", ""), str):
        raise ManifestError(f'{MANIFEST}: "model" is not an object whose "handler" is a text')
    return said


def _names_module(directory: Path, options: Mapping[str, str], handler: str) -> bool:
    """Whether a handler is a module as Multi Model Server has it, and not the name of a function as DJL does."""
    if ":" in handler or handler.endswith(".py"):
        return True
    is_djls = "option.entryPoint" in options or (directory / "model.py").is_file()
    return handler != "" and not is_djls and (directory / f"{handler}.py").is_file()


def _by_functions(directory: Path, entry_point: str, options: Mapping[str, str]) -> Decision | None:
    """None where a file has no function of any contract."""
    file = directory / (entry_point if entry_point.endswith(".py") else entry_point.replace(".", "/") + ".py")
    functions = _functions(file)
    if functions is None:
        # It says itself what is wrong when it is imported; model.py and entry points are DJL's until then.
        return Decision(Contract.SAGEMAKER, {"option.entryPoint": entry_point}) if _is_inference(entry_point) else None
    name = options.get("option.handler") or "handle"
    parameters = functions.get(name)
    if parameters is not None and parameters >= 2:
        return Decision(Contract.MMS, {"option.handler": f"{entry_point}:{name}"})
    if parameters is not None:
        return Decision(Contract.DJL, {"option.entryPoint": entry_point})
    if SAGEMAKER_FUNCTIONS & functions.keys() or ("*" in functions and _is_inference(entry_point)):
        return Decision(Contract.SAGEMAKER, {"option.entryPoint": entry_point})
    return None


def _is_inference(entry_point: str) -> bool:
    return entry_point in INFERENCE_FILES


def _functions(file: Path) -> dict[str, int] | None:
    """What a file defines at its top, and how many parameters each takes by position, 1 where that cannot be seen.

    None for what is no Python. `*` stands for `from ... import *`, which may bring anything.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return dict(_defined(tree.body))


def _defined(statements: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, len(statement.args.posonlyargs) + len(statement.args.args)
        elif isinstance(statement, ast.ImportFrom | ast.Import):
            yield from ((alias.asname or alias.name, 1) for alias in statement.names)
        elif isinstance(statement, ast.Assign):
            yield from ((target.id, 1) for target in statement.targets if isinstance(target, ast.Name))
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _defined(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _defined(handler.body)
