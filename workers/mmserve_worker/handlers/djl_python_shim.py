"""The `djl_python` package that a model.py written for DJL Serving imports from.

Put into sys.modules when a model needs it and no real one is installed. Names, arguments and results are those that
models rely on; how it works is our own. The parts for language models are not here, and importing them fails.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from mmserve_worker.handlers.djl_input import Input
from mmserve_worker.handlers.djl_output import Output
from mmserve_worker.handlers.djl_pair_list import PairList


def install() -> None:
    """Makes `from djl_python import Input, Output` work, unless it already does."""
    if "djl_python" in sys.modules or importlib.util.find_spec("djl_python") is not None:
        return
    package = ModuleType("djl_python")
    package.__path__ = []
    sys.modules["djl_python"] = package
    for name, exported in (("inputs", Input), ("outputs", Output), ("pair_list", PairList)):
        module = ModuleType(f"djl_python.{name}")
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        for target in (package, module):
            setattr(target, exported.__name__, exported)
