"""Models with a model.py for DJL Serving: `def handle(inputs)`, taking an Input and returning an Output, unmodified.

`handle` is called once at load with an empty Input whose properties are the model's, then for every request, whose
headers are the properties. Requests are only put together where the owner asked for it with a batch_size, because only
then does DJL: a handler that was never given a batch need not know what one is. A model.py without `handle` may have
decorated functions instead, see djl_formatted.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmserve_worker.calls import Call, CallError, Handler, ModelSpec, Reply
from mmserve_worker.handlers import djl_formatted, djl_python_shim, djl_replies, model_code
from mmserve_worker.handlers.djl_requests import Requests
from mmserve_worker.handlers.errors import LoadError, logger, model_failure
from mmserve_worker.handlers.options import is_batch_size_said

_MODEL_CODE = "model.py"
_DEFAULT_HANDLER = "handle"
# As in `option.entryPoint=djl_python.sklearn_handler`: the handler is the server's, and decorated functions of model.py
# are its parts.
_BUILT_IN = "djl_python."
# sys.exit() in a handler is that request's failure; at load it is the loader's to report.
_RAISED_BY_MODELS = (Exception, SystemExit)


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
    if not callable(handle):
        if djl_formatted.has_parts(module):
            return djl_formatted.load(spec, directory, module)
        raise LoadError(f"{entry_point} has no function {name}(inputs)")
    handler = DjlHandler(spec, directory, name, handle)
    handler.initialize()
    return handler


class DjlHandler:
    def __init__(self, spec: ModelSpec, directory: Path, name: str, handle: Callable[[Any], Any]) -> None:
        self._name = spec.name
        self._handle = handle
        self._function_name = name
        self._requests = Requests(spec, directory, name)
        self._takes_batches = is_batch_size_said(spec.options)

    def initialize(self) -> None:
        output = self._handle(self._requests.initial())
        if output is not None and getattr(output, "code", 200) >= 300:
            raise LoadError(f"{self._function_name} answered the first call with {djl_replies.described(output)}")

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        if len(calls) > 1 and self._takes_batches:
            replies = self._together(calls)
            if replies is not None:
                return replies
        return [self._alone(call) for call in calls]

    def _alone(self, call: Call) -> Reply:
        try:
            return djl_replies.reply(self._handle(self._requests.of_call(call)))
        except CallError as error:
            return error.reply()
        except _RAISED_BY_MODELS as error:
            return model_failure(error, self._name)

    def _together(self, calls: Sequence[Call]) -> list[Reply] | None:
        """The answers to a batch; None where they have to be asked for one by one, as after any failure: of a batch's
        error nobody knows whose it is."""
        try:
            output = self._handle(self._requests.of_batch(calls))
            if getattr(output, "code", 300) >= 300:
                return None
            replies = djl_replies.split(output, len(calls))
        except _RAISED_BY_MODELS:
            return None
        if replies is None:
            # It would be asked in vain, and every request answered twice, for as long as it lives.
            logger.warning("model %s does not answer batches as such: it gets one request at a time", self._name)
            self._takes_batches = False
        return replies
