"""Models for SageMaker's containers: inference.py with model_fn, input_fn, predict_fn, output_fn or transform_fn.

    model_fn(model_dir) once, then for each request  input_fn(body, content type) ──► predict_fn(data, model) ──►
    output_fn(prediction, accept)                    or transform_fn(model, body, content type, accept) for all three

What is missing is done as the containers for scikit-learn and XGBoost do it, and a missing model_fn loads the model
file. Arguments go by position whatever they are called, and to a function that takes one more, the context. The
contract knows no batches: requests are answered one by one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mmserve_worker.calls import Call, CallError, Handler, ModelSpec, Reply
from mmserve_worker.codecs import media_types
from mmserve_worker.codecs.refusals import bad_request
from mmserve_worker.handlers import mms_replies, model_code, model_files, sagemaker_codecs, sagemaker_shims
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, LoadError
from mmserve_worker.handlers.files import model_file
from mmserve_worker.handlers.mms_context import Context

# The only bodies that the containers make text of; others stay bytes.
_TEXTS = (sagemaker_codecs.JSON, sagemaker_codecs.CSV)

Function = Callable[..., Any]


def load(spec: ModelSpec) -> Handler:
    directory = Path(spec.directory).resolve()
    model_code.enter(directory)
    if (directory / "code").is_dir():
        model_code.make_importable(directory / "code")
    sagemaker_shims.install()
    module = model_code.entry_module(directory, spec.options["option.entryPoint"])
    return SageMakerHandler(spec, directory, _Functions(module, Context(spec.name, str(directory), {}, 1, {})))


class _Functions:
    """The functions of the model's code, called with as much as they take."""

    def __init__(self, module: ModuleType, context: Context) -> None:
        self.context = context
        self._module = module
        self._arguments: dict[str, int] = {}
        if self.has("transform_fn") and (others := [name for name in _INSTEAD_OF_TRANSFORM if self.has(name)]):
            raise LoadError(f"transform_fn does all that {', '.join(others)} would do: only one of them can be there")

    def has(self, name: str) -> bool:
        return callable(getattr(self._module, name, None))

    def call(self, name: str, *arguments: Any) -> Any:
        function: Function = getattr(self._module, name)
        if name not in self._arguments:
            self._arguments[name] = _taken(function, len(arguments))
        return function(*(*arguments, self.context)[: self._arguments[name]])


_INSTEAD_OF_TRANSFORM = ("input_fn", "predict_fn", "output_fn")


def _taken(function: Function, given: int) -> int:
    """How many arguments a function is called with; one more than is usual is the context."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Some written in C do not tell.
        return given
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return given
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(positional) > given:
        # With a default it may be anything of the owner's own, unless it is called so.
        further = positional[given]
        return given + 1 if further.default is further.empty or further.name == "context" else given
    return len(positional)


class SageMakerHandler:
    def __init__(self, spec: ModelSpec, directory: Path, functions: _Functions) -> None:
        self._name = spec.name
        self._functions = functions
        self._default_accept = spec.options.get("option.default_accept") or sagemaker_codecs.JSON
        if functions.has("pre_model_fn"):
            functions.call("pre_model_fn", str(directory))
        if functions.has("model_fn"):
            self._model = functions.call("model_fn", str(directory))
        else:
            self._model = model_files.load(model_file(directory, spec.options), spec.name, spec.options)
        if functions.has("model_warmup_fn"):
            functions.call("model_warmup_fn", str(directory), self._model)

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> Reply:
        accept = call.accept if call.accept.strip() not in ("", "*", "*/*") else self._default_accept
        try:
            self._functions.context.begin([call])
            return self._reply(self._result(call, accept), accept)
        except RAISED_BY_MODELS as error:
            return mms_replies.refusal(error, self._name)

    def _result(self, call: Call, accept: str) -> Any:
        """What the model's code has made of a request, or a finished reply."""
        functions = self._functions
        content_type = call.content_type or sagemaker_codecs.JSON
        if functions.has("transform_fn"):
            return functions.call("transform_fn", self._model, _body(call, content_type), content_type, accept)
        if functions.has("input_fn"):
            data = functions.call("input_fn", _body(call, content_type), content_type)
        else:
            data = sagemaker_codecs.model_input(call.body, content_type, self._model)
        if functions.has("predict_fn"):
            prediction = functions.call("predict_fn", data, self._model)
        else:
            prediction = sagemaker_codecs.predict(data, self._model)
        if functions.has("output_fn"):
            return functions.call("output_fn", prediction, accept)
        return sagemaker_codecs.encoded(prediction, accept)

    def _reply(self, result: Any, accept: str) -> Reply:
        processor = self._functions.context.request_processor[0]
        content_type = sagemaker_codecs.answerable(accept)
        if isinstance(result, Reply):
            content_type, result = result.content_type, result.body
            result = b"".join(result) if isinstance(result, tuple) else result
        elif isinstance(result, tuple) and len(result) == 2:
            result, content_type = result[0], str(result[1])
        elif hasattr(result, "get_data"):
            # Flask's Response, which the containers' own is one of.
            for name, value in dict(result.headers).items():
                processor.add_response_property(name, value)
            processor.report_status(result.status_code)
            content_type, result = str(result.content_type), result.get_data()
        if result is None:
            raise CallError(424, "ModelException", "the model's code has returned None instead of an answer")
        if not isinstance(result, str | bytes | bytearray | memoryview):
            written = sagemaker_codecs.encoded(result, accept)
            result, content_type = written.body, written.content_type
            result = b"".join(result) if isinstance(result, tuple) else result
        return mms_replies.reply(result, processor, content_type)


def _body(call: Call, content_type: str) -> str | bytes:
    body = bytes(call.body)
    if content_type.partition(";")[0].strip().lower() not in _TEXTS:
        return body
    charset = media_types.split(content_type)[1]
    try:
        return body.decode(charset)
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not {charset}: {error.reason} at byte {error.start}") from None
