"""What handlers written for Multi Model Server and TorchServe import from these servers.

Put into sys.modules when a model needs it and the real one is not installed. TorchServe's BaseHandler is here as far
as it needs no torch: it calls the steps that a handler of its own defines.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from mmserve_worker.handlers.mms_context import Context, RequestProcessor


class PredictionException(Exception):
    """Raised by a handler to say which status its caller gets."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code


class BaseHandler:
    """TorchServe's skeleton of a handler: preprocess, inference, postprocess."""

    def __init__(self) -> None:
        self.model: Any = None
        self.context: Context | None = None
        self.manifest: Mapping[str, Any] = {}
        self.initialized = False

    def initialize(self, context: Context) -> None:
        self.context = context
        self.manifest = context.manifest
        self.initialized = True

    def preprocess(self, data: Any) -> Any:
        return data

    def inference(self, data: Any, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("this handler has no inference(data) of its own, and TorchServe's needs torch")

    def postprocess(self, data: Any) -> Any:
        return data.tolist() if hasattr(data, "tolist") else data

    def handle(self, data: Any, context: Context) -> Any:
        self.context = context
        return self.postprocess(self.inference(self.preprocess(data)))


_OF_MMS: dict[str, dict[str, Any]] = {
    "mms": {},
    "mms.service": {"PredictionException": PredictionException},
    "mms.context": {"Context": Context, "RequestProcessor": RequestProcessor},
}
_OF_TORCHSERVE: dict[str, dict[str, Any]] = {
    "ts": {},
    "ts.context": {"Context": Context, "RequestProcessor": RequestProcessor},
    "ts.utils": {},
    "ts.utils.util": {"PredictionException": PredictionException},
    "ts.torch_handler": {},
    "ts.torch_handler.base_handler": {"BaseHandler": BaseHandler},
}


def install() -> None:
    install_packages(_OF_MMS, _OF_TORCHSERVE)


def install_packages(*packages: Mapping[str, Mapping[str, Any]]) -> None:
    """Makes modules importable by their dotted names, a package at a time, unless it is installed."""
    for modules in packages:
        name = next(iter(modules))
        if name in sys.modules or importlib.util.find_spec(name) is not None:
            continue
        for dotted, exported in modules.items():
            module = ModuleType(dotted)
            module.__path__ = []
            vars(module).update(exported)
            sys.modules[dotted] = module
            package, _, last = dotted.rpartition(".")
            if package:
                setattr(sys.modules[package], last, module)
