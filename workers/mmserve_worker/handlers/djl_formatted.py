"""DJL's built-in handlers for scikit-learn and XGBoost, with parts of them replaced by decorated functions of model.py.

    @init_handler(model_dir) once, then for each request  @input_formatter(inputs) ──► @prediction_handler(data, model)
    ──► @output_formatter(prediction)

What is not there is done as for a model that is a file alone. The decorators know no batches: requests are answered
one by one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mmserve_worker import codecs
from mmserve_worker.calls import Call, CallError, Handler, ModelSpec, Reply
from mmserve_worker.handlers import djl_replies, features, libraries, model_files, results, rows
from mmserve_worker.handlers.djl_formatters import PARTS, is_part
from mmserve_worker.handlers.djl_output import Output
from mmserve_worker.handlers.djl_requests import Requests
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, LoadError, failure, model_failure
from mmserve_worker.handlers.files import model_file
from mmserve_worker.handlers.served import Served

Part = Callable[..., Any]


def load(spec: ModelSpec, directory: Path, module: ModuleType) -> Handler:
    parts = parts_of(module)
    return FormattedHandler(spec, directory, parts) if parts else rows.load(spec)


def parts_of(module: ModuleType) -> dict[str, Part]:
    """The decorated functions of a module by what they are; of several for the same, the last counts."""
    return {part: value for value in vars(module).values() for part in PARTS if is_part(value, part)}


class FormattedHandler:
    def __init__(self, spec: ModelSpec, directory: Path, parts: dict[str, Part]) -> None:
        self._name = spec.name
        self._requests = Requests(spec, directory, "handle")
        self._parts = parts
        if "init_handler" in parts:
            self._model = parts["init_handler"](str(directory))
            if self._model is None:
                raise LoadError(f"{parts['init_handler'].__name__}, the init_handler, has returned no model")
        else:
            self._model = model_files.load(model_file(directory, spec.options), spec.name, spec.options)
        self._options = spec.options
        self._known: Served | None = None

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> Reply:
        try:
            return self._written(self._predicted(self._data(call), call), call)
        except RAISED_BY_MODELS as error:
            # Where all of the input's way is ours, what a library refuses is the caller's to mend.
            ours = not {"input_formatter", "prediction_handler"} & self._parts.keys()
            return failure(error, self._name) if ours else model_failure(error, self._name)

    @property
    def _served(self) -> Served:
        """The model as the server knows it. An init_handler's may be anything, and is looked at when it has to be."""
        if self._known is None:
            self._known = libraries.served(self._model, self._options)
        return self._known

    def _data(self, call: Call) -> Any:
        part = self._parts.get("input_formatter")
        if part is not None:
            inputs = self._requests.of_call(call)
            if _takes(part, "content_type"):
                return part(inputs, content_type=call.content_type)
            return part(inputs)
        # Bodies are read in place, and a model's own code may write to what it is given.
        columns = features.joined([self._served.inputs.read(call.body, call.content_type)])
        return self._served.inputs.assembled([np.array(column) for column in columns])

    def _predicted(self, data: Any, call: Call) -> Any:
        part = self._parts.get("prediction_handler")
        if part is not None:
            first = next(iter(inspect.signature(part).parameters), "")
            # Both orders are in use.
            return part(self._model, data) if first == "model" else part(data, self._model)
        methods = self._served.methods
        method = call.method or self._options.get("option.method") or next(iter(methods), "predict")
        if method not in methods:
            raise CallError(400, "BadRequestException", f"this model has {', '.join(methods)}")
        return methods[method](data)

    def _written(self, prediction: Any, call: Call) -> Reply:
        part = self._parts.get("output_formatter")
        if part is None:
            return codecs.writer(call.accept)(results.answer_of(prediction, "predict"))
        output = part(prediction)
        if output is None or hasattr(output, "properties"):
            return djl_replies.reply(output)
        return djl_replies.reply(Output().add(output))


def _takes(part: Part, name: str) -> bool:
    parameters = inspect.signature(part).parameters.values()
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)
