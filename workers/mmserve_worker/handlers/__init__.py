"""Loads a model by the contract that its directory follows.

One module per contract, each with a `load` of its own; which one it is, is decided in contracts.py. A module is
imported when a model needs it, because a worker may run where another contract's libraries are missing.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

from mmserve_worker.calls import Handler, ModelSpec
from mmserve_worker.handlers import contracts


def load(spec: ModelSpec) -> Handler:
    decision = contracts.decide(Path(spec.directory), spec.options)
    if decision.options:
        spec = replace(spec, options={**spec.options, **decision.options})
    loaded: Handler = importlib.import_module(decision.contract.value).load(spec)
    return loaded
