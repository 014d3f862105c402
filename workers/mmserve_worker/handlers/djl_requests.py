"""Requests as the Inputs that a model.py for DJL Serving is given: one for each, or one for a batch of them.

Properties are the headers, the custom attributes of SageMaker's client and what DJL adds to both; content is the
query's parameters, and then the body: one entry called `data`, or one for each field of a form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmserve_worker.calls import Call, ModelSpec
from mmserve_worker.handlers import forms
from mmserve_worker.handlers.djl_input import Input

_CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
# Makes an Input one of several, which no caller may.
_BATCH_SIZE = "batch_size"


class Requests:
    """Makes the Inputs of one model, whose function they are for has that name."""

    def __init__(self, spec: ModelSpec, directory: Path, function_name: str) -> None:
        self._options = spec.options
        self._function_name = function_name
        # What DJL adds to the properties of every Input.
        self._surroundings = {
            "handler": function_name,
            "device_id": "-1",
            "model_dir": str(directory),
            "cluster_size": "1",
        }

    def initial(self) -> Input:
        """The one of the first call: it is empty, and has what the model's owner says."""
        return self._input({key.removeprefix("option."): value for key, value in self._options.items()})

    def of_call(self, call: Call) -> Input:
        """Raises CallError for a form that is none."""
        inputs = self._input(self._properties(call))
        for key, value in _content(call):
            inputs.content.add(key, value)
        return inputs

    def of_batch(self, calls: Sequence[Call]) -> Input:
        """Raises CallError as `of_call`."""
        inputs = self._input({_BATCH_SIZE: str(len(calls))})
        for index, call in enumerate(calls):
            prefix = f"batch_{index:03}."
            inputs.properties.update((prefix + key, value) for key, value in self._properties(call).items())
            for key, value in _content(call):
                inputs.content.add(prefix + key, value)
        return inputs

    def _input(self, properties: Mapping[str, str]) -> Input:
        inputs = Input()
        inputs.function_name = self._function_name
        inputs.properties = {**properties, **self._surroundings}
        return inputs

    def _properties(self, call: Call) -> dict[str, str]:
        said = [*call.headers.items(), ("Content-Type", call.content_type), ("Accept", call.accept)]
        attributes = next((value for name, value in call.headers.items() if name.lower() == _CUSTOM_ATTRIBUTES), "")
        said += [(name.strip(), value.strip()) for name, is_pair, value in _pairs(attributes) if is_pair]
        # A caller says no property of the server's, however it is written: a model that looks for one finds the first
        # of any case.
        known = {*self._surroundings, _BATCH_SIZE, "requestid"}
        properties = {}
        for name, value in said:
            if value and name.lower() not in known:
                known.add(name.lower())
                properties[name] = value
        properties["requestId"] = call.request_id
        return properties


def _pairs(attributes: str) -> Iterator[tuple[str, str, str]]:
    return (attribute.partition("=") for attribute in attributes.split(";"))


def _content(call: Call) -> Iterator[tuple[str, bytearray]]:
    for name, value in call.query:
        yield name, bytearray(value, "utf-8", "replace")
    fields = forms.fields(call)
    if fields is not None:
        yield from ((field.name, field.value) for field in fields)
    elif len(call.body):
        # A bytearray of its own: handlers may keep it, or write to it, and the body is the channel's memory.
        yield "data", bytearray(call.body)
