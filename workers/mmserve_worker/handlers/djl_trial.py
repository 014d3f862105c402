"""djl_python.test_model: runs a model.py without a server, for its owner's own tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers import model_code
from mmserve_worker.handlers.djl_input import Input
from mmserve_worker.handlers.djl_output import Output


class TestHandler:
    """`entry_point` is a file of `model_dir`, or a module that is imported already."""

    # It is no test, whatever pytest makes of its name.
    __test__ = False

    def __init__(self, entry_point: str | ModuleType, model_dir: str | None = None) -> None:
        if isinstance(entry_point, str):
            directory = Path(model_dir or ".").resolve()
            model_code.enter(directory)
            entry_point = model_code.entry_module(directory, entry_point)
        self._module = entry_point

    def inference(self, inputs: Input) -> Any:
        """What the model's handler returns; that is `handle` where the Input names none."""
        return getattr(self._module, inputs.get_function_name() or "handle")(inputs)

    def inference_batch(
        self,
        inputs: Sequence[Any],
        properties: Sequence[Mapping[str, Any]] | None = None,
        serving_properties: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.inference(create_concurrent_batch_request(inputs, properties, serving_properties))


def create_concurrent_batch_request(
    inputs: Sequence[Any],
    properties: Sequence[Mapping[str, Any]] | None = None,
    serving_properties: Mapping[str, Any] | None = None,
) -> Input:
    """Requests with these bodies, which become JSON, as one batch."""
    batch = Input()
    batch.properties = {**(serving_properties or {}), "batch_size": str(len(inputs))}
    batch.function_name = batch.properties.get("handler", "handle")
    for index, said in enumerate(properties or ()):
        batch.properties.update((f"batch_{index:03}.{name}", value) for name, value in said.items())
    for index, body in enumerate(inputs):
        batch.content.add(f"batch_{index:03}.data", Output().add_as_json(body).content.value_at(0))
    return batch


def create_text_request(text: str, key: str | None = None) -> Input:
    return _request("text/plain", Output().add(text), key)


def create_numpy_request(arrays: Sequence[Array], key: str | None = None) -> Input:
    return _request("tensor/ndlist", Output().add_as_numpy(arrays), key)


def create_npz_request(arrays: Sequence[Array], key: str | None = None) -> Input:
    return _request("tensor/npz", Output().add_as_npz(arrays), key)


def _request(content_type: str, body: Output, key: str | None) -> Input:
    request = Input()
    request.properties.update({"device_id": "-1", "content-type": content_type})
    request.content.add(key, body.content.value_at(0))
    return request


def extract_output_as_input(outputs: Output) -> Input:
    """An answer, to be read by the methods of an Input."""
    inputs = Input()
    inputs.properties, inputs.content = outputs.properties, outputs.content
    return inputs


def extract_output_as_bytes(outputs: Output, key: str | None = None) -> Any:
    return extract_output_as_input(outputs).get_as_bytes(key)


def extract_output_as_string(outputs: Output, key: str | None = None) -> str | None:
    return extract_output_as_input(outputs).get_as_string(key)


def extract_output_as_numpy(outputs: Output, key: str | None = None) -> list[Array]:
    return extract_output_as_input(outputs).get_as_numpy(key)


def extract_output_as_npz(outputs: Output, key: str | None = None) -> list[Array]:
    return extract_output_as_input(outputs).get_as_npz(key)
