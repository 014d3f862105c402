"""Archives as the sample for SageMaker's multi-model endpoints has them: a LinearRegression behind code of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib

from benchmarks.models import linear
from mmserve.models.pack import pack

BODY = b"[[0.5]]"
_PROPERTIES = {"engine": "Python", "max_idle_time": "600"}
# Of the libraries that there are, so that the base environment serves.
_REQUIREMENTS = "".join(f"{name}=={version(name)}\n" for name in ("numpy", "joblib", "scikit-learn"))

# Loads its model from the working directory at the first request, and answers the first row, as the sample does.
_CODE = """
import joblib
from djl_python import Input, Output


class Regressor:
    def __init__(self):
        self.initialized = False

    def initialize(self, properties):
        self.model = joblib.load("model.joblib")
        self.initialized = True

    def inference(self, inputs: Input) -> Output:
        try:
            rows = inputs.get_as_json()
            return Output().add_as_json(self.model.predict(rows).tolist()[0])
        except Exception as error:
            return Output().error(str(error))


_service = Regressor()


def handle(inputs: Input) -> Output:
    if not _service.initialized:
        _service.initialize(inputs.get_properties())
    if inputs.is_empty():
        return None
    return _service.inference(inputs)
"""


def answer(slope: float) -> float:
    """What the model of this slope says to BODY."""
    return slope * 0.5 + 1.0


def archive(slope: float, properties: Mapping[str, str] | None = None) -> bytes:
    """`model.tar.gz`, as it is uploaded."""
    with tempfile.TemporaryDirectory() as directory:
        model, code, requirements = (Path(directory, name) for name in ("model.joblib", "model.py", "requirements.txt"))
        fitted: Any = linear(slope)
        joblib.dump(fitted, model)
        code.write_text(_CODE)
        requirements.write_text(_REQUIREMENTS)
        output = Path(directory, "model.tar.gz")
        pack([model, code, requirements], output, {**_PROPERTIES, **(properties or {})})
        return output.read_bytes()
