"""Models for Multi Model Server and TorchServe: `handle(data, context)`, a function of a module or a class's method.

`data` is a list with a dictionary for each request: the parameters of the query by their names, and the body as `body`,
or the fields of a form by their names. A function is called once at load with None, a class is made and told to
initialize(context). Requests are only put together where the owner asked for it with a batch_size. Unlike there, a
model that raises while it is initialized does not load, and a failed batch is asked for again one by one, so that only
the bad one fails.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mmserve_worker.calls import Call, Handler, ModelSpec, Reply
from mmserve_worker.handlers import contracts, forms, mms_replies, mms_shims, model_code
from mmserve_worker.handlers.batching import Batching
from mmserve_worker.handlers.errors import LoadError, logger
from mmserve_worker.handlers.mms_context import Context
from mmserve_worker.handlers.options import is_batch_size_said

_DEFAULT_FUNCTION = "handle"

Handle = Callable[[Any, Context], Any]


def load(spec: ModelSpec) -> Handler:
    directory = Path(spec.directory).resolve()
    model_code.enter(directory)
    mms_shims.install()
    manifest = contracts.manifest(directory)
    _check_runtime(manifest)
    batch_size = int(spec.options["batch_size"]) if is_batch_size_said(spec.options) else 1
    config = json.loads(spec.options.get(contracts.MODEL_CONFIG, "{}"))
    context = Context(spec.name, str(directory), manifest, batch_size, config)
    file, _, function = spec.options["option.handler"].partition(":")
    handle = _initialized(_module(directory, file), function, context)
    return MmsHandler(spec, handle, context)


def _check_runtime(manifest: Mapping[str, Any]) -> None:
    runtime = manifest.get("runtime") or "python"
    if runtime not in ("python", "python3"):
        raise LoadError(f"{contracts.MANIFEST}: the runtime is {runtime!r}, and only python is served")
    envelope = manifest.get("model", {}).get("envelope")
    if envelope:
        raise LoadError(f"{contracts.MANIFEST}: the envelope {envelope!r} is not served: write the handler without one")


def _module(directory: Path, named: str) -> ModuleType:
    """A file of the directory, wherever the handler says that it was when it was archived; else what can be
    imported."""
    file = Path(named if named.endswith(".py") else named.replace(".", "/") + ".py")
    for name in (str(file), file.name):
        if (directory / name).is_file():
            return model_code.entry_module(directory, name)
    if named.endswith(".py"):
        raise LoadError(f"there is no {file.name}, which the handler is said to be in")
    return model_code.entry_module(directory, named)


def _initialized(module: ModuleType, function: str, context: Context) -> Handle:
    found = getattr(module, function or _DEFAULT_FUNCTION, None)
    if found is None and not function:
        found = _only_class(module)
    if inspect.isclass(found):
        instance = found()
        if hasattr(instance, "initialize"):
            instance.initialize(context)
        found = getattr(instance, "handle", None)
    elif callable(found):
        found(None, context)
    if not callable(found):
        raise LoadError(f"the handler has no {function or 'function or class with a method handle'}(data, context)")
    handle: Handle = found
    return handle


def _only_class(module: ModuleType) -> type | None:
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "handle")
    ]
    if len(classes) > 1:
        names = ", ".join(found.__name__ for found in classes)
        raise LoadError(f"several classes of the handler have a method handle ({names}): say which as module.py:Class")
    return classes[0] if classes else None


class MmsHandler:
    def __init__(self, spec: ModelSpec, handle: Handle, context: Context) -> None:
        self._name = spec.name
        self._handle = handle
        self._context = context
        self._batching = Batching(spec, self._answers, mms_replies.refusal)
        self._decodes = spec.options.get("option.decode_input_request", "true").lower() != "false"

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        return self._batching.answer(calls)

    def _answers(self, calls: Sequence[Call]) -> list[Reply] | None:
        """None where it is not a list with an answer for each."""
        data = [self._inputs(call) for call in calls]
        self._context.begin(calls)
        answers = self._handle(data, self._context)
        if not isinstance(answers, list) or len(answers) != len(calls):
            return None
        return [
            mms_replies.reply(answer, processor)
            for answer, processor in zip(answers, self._context.request_processor, strict=True)
        ]

    def _inputs(self, call: Call) -> dict[str, Any]:
        # Bytes, as fields of a form are that do not say what they are: handlers decode both.
        inputs: dict[str, Any] = {name: bytearray(value, "utf-8", "replace") for name, value in call.query}
        fields = forms.fields(call)
        if fields is None:
            # A bytearray of its own: handlers may keep it, or write to it, and the body is the channel's memory.
            inputs["body"] = self._decoded(bytearray(call.body), call.content_type)
        else:
            inputs.update((field.name, self._decoded(field.value, field.content_type)) for field in fields)
        return inputs

    def _decoded(self, value: bytearray, content_type: str) -> Any:
        """What cannot be decoded is handed over as it came: the handler may know better."""
        media_type = content_type.partition(";")[0].strip().lower()
        try:
            if self._decodes and media_type == "application/json":
                return json.loads(value)
            if self._decodes and media_type.startswith("text/"):
                return value.decode()
        except (ValueError, RecursionError):
            logger.warning("model %s: a body is no %s, and is handed over as bytes", self._name, media_type)
        return value
