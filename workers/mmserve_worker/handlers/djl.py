"""Models with a model.py for DJL Serving: `def handle(inputs)`, taking an Input and returning an Output, unmodified.

`handle` is called once at load with an empty Input whose properties are the model's, then for every request, whose
headers are the properties. Requests are only put together where the owner asked for it with a batch_size, because only
then does DJL: a handler that was never given a batch need not know what one is. A model.py without `handle` may have
decorated functions instead, see djl_formatted.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmserve_worker.calls import Call, CallError, Handler, ModelSpec, Reply
from mmserve_worker.handlers import djl_formatted, djl_python_shim, djl_replies, model_code
from mmserve_worker.handlers.batching import Batching
from mmserve_worker.handlers.djl_requests import Requests
from mmserve_worker.handlers.errors import LoadError, model_failure

_MODEL_CODE = "model.py"
_DEFAULT_HANDLER = "handle"
# As in `option.entryPoint=djl_python.sklearn_handler`: the handler is the server's, and decorated functions of model.py
# are its parts.
_BUILT_IN = "djl_python."
# Decorated functions that a handler of the model's own is told of in its first call.
_FORMATTERS = ("input_formatter", "output_formatter")


def load(spec: ModelSpec) -> Handler:
    directory = Path(spec.directory).resolve()
    model_code.enter(directory)
    djl_python_shim.install()
    entry_point = spec.options.get("option.entryPoint") or _MODEL_CODE
    if entry_point.startswith(_BUILT_IN):
        return djl_formatted.load(spec, directory, model_code.entry_module(directory, _MODEL_CODE))
    module = model_code.entry_module(directory, entry_point)
    name = spec.options.get("option.handler") or _DEFAULT_HANDLER
    handle = getattr(module, name, None)
    parts = djl_formatted.parts_of(module)
    if not callable(handle):
        if parts:
            return djl_formatted.load(spec, directory, module)
        raise LoadError(f"{entry_point} has no function {name}(inputs)")
    handler = DjlHandler(spec, directory, name, handle)
    handler.initialize({part: function for part, function in parts.items() if part in _FORMATTERS})
    return handler


class DjlHandler:
    def __init__(self, spec: ModelSpec, directory: Path, name: str, handle: Callable[[Any], Any]) -> None:
        self._handle = handle
        self._function_name = name
        self._requests = Requests(spec, directory, name)
        self._batching = Batching(spec, self._replies, model_failure)

    def initialize(self, formatters: Mapping[str, Callable[..., Any]]) -> None:
        inputs = self._requests.initial()
        inputs.properties.update(formatters)
        output = self._handle(inputs)
        if output is not None and getattr(output, "code", 200) >= 300:
            raise LoadError(f"{self._function_name} answered the first call with {djl_replies.described(output)}")

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        return self._batching.answer(calls)

    def _replies(self, calls: Sequence[Call]) -> list[Reply] | None:
        if len(calls) == 1:
            return [djl_replies.reply(self._handle(self._requests.of_call(calls[0])))]
        output = self._handle(self._requests.of_batch(calls))
        if getattr(output, "code", 300) >= 300:
            raise CallError(424, "ModelException", "one error for all")
        return djl_replies.split(output, len(calls))
