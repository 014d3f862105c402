"""ONNX models, run by ONNX Runtime on the CPU.

`predict` gives the first output. `predict_proba` gives the probabilities of a classifier's, as a row for each row, be
they an array or, as converters write them, a sequence of dictionaries. Every output can be asked for by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmserve_worker.codecs.refusals import bad_request
from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers.onnx_inputs import OnnxInputs
from mmserve_worker.handlers.options import thread_count
from mmserve_worker.handlers.served import Method, Served

# What ONNX Runtime writes before what it has to say.
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
# And behind it.
_ADVICE = "Please fix "
_ERRORS_ONLY = 3


def read(file: Path, options: Mapping[str, str]) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    # With 1 no thread is started. The nodes of a graph run one after the other in any case.
    settings.intra_op_num_threads = thread_count(options)
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _ERRORS_ONLY
    # Threads that wait for the next call by turning take the CPU from other models.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By its path, for the files beside it that large models keep their weights in.
    return onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])


def served(model: Any, options: Mapping[str, str]) -> Served:
    inputs = OnnxInputs(model.get_inputs())
    runner = _Runner(model, inputs.largest_batch)
    outputs = model.get_outputs()
    methods: dict[str, Method] = {"predict": runner.output(outputs[0].name)}
    for output in outputs:
        if _is_probabilities(output, outputs):
            methods["predict_proba"] = runner.matrix(output.name)
    for output in outputs:
        methods.setdefault(output.name, runner.output(output.name))
    # A graph that says how many rows it takes does not take several callers'.
    return Served("the ONNX model", methods, inputs, can_join=not inputs.largest_batch)


def _is_probabilities(output: Any, outputs: Sequence[Any]) -> bool:
    """Of a classifier: converters give its label first, then a dictionary or an array for each row."""
    if output.type.startswith("seq(map("):
        return True
    return len(outputs) > 1 and "prob" in output.name.lower() and output.type in ("tensor(float)", "tensor(double)")


class _Runner:
    def __init__(self, session: Any, largest_batch: int) -> None:
        from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

        self._session = session
        self._largest_batch = largest_batch
        self._refusal = InvalidArgument

    def output(self, name: str) -> Method:
        def call(inputs: dict[str, Array]) -> Any:
            return self._run(name, inputs)

        return call

    def matrix(self, name: str) -> Method:
        def call(inputs: dict[str, Array]) -> Any:
            result = self._run(name, inputs)
            if isinstance(result, list):
                return np.array([list(row.values()) for row in result])
            return result

        return call

    def _run(self, name: str, inputs: dict[str, Array]) -> Any:
        count = len(next(iter(inputs.values())))
        step = self._largest_batch or count
        if count % step:
            raise bad_request(f"{count} rows were sent: this model takes {step} at a time")
        results = [
            self._run_once(name, {key: values[start : start + step] for key, values in inputs.items()})
            for start in range(0, count, step)
        ]
        if len(results) == 1:
            return results[0]
        return list(chain.from_iterable(results)) if isinstance(results[0], list) else np.concatenate(results)

    def _run_once(self, name: str, inputs: dict[str, Array]) -> Any:
        try:
            (result,) = self._session.run([name], inputs)
        except self._refusal as error:
            raise bad_request(_refused(str(error))) from error
        return result


def _refused(said: str) -> str:
    """In one line, with the figures of the others and without the advice at the end."""
    return " ".join(_PREFIX.sub("", said).partition(_ADVICE)[0].split())
