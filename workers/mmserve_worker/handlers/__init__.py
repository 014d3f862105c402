"""Loads a model by the contract that its directory follows.

One module per contract, each with a `load` of its own; a further contract is a module and a line of the
table. A module is imported when a model needs it, because a worker may run where another contract's libraries
are missing.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from mmserve_worker.calls import Handler, ModelSpec

_ROWS = "mmserve_worker.handlers.rows"
_DJL = "mmserve_worker.handlers.djl"

# What `option.entryPoint` may name beside a model's own code, as serving.properties files of other servers
# do.
_BUILT_IN = {
    "djl_python.sklearn_handler": _ROWS,
    "djl_python.xgboost_handler": _ROWS,
}


def load(spec: ModelSpec) -> Handler:
    loaded: Handler = importlib.import_module(_contract(spec)).load(spec)
    return loaded


def _contract(spec: ModelSpec) -> str:
    entry_point = spec.options.get("option.entryPoint")
    if entry_point:
        return _BUILT_IN.get(entry_point, _DJL)
    if (Path(spec.directory) / "model.py").is_file():
        return _DJL
    return _ROWS
