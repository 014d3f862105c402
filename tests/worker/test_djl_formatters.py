"""DJL's handler for scikit-learn with decorated functions of model.py as parts of it."""

from __future__ import annotations

from pathlib import Path

import joblib
import pytest

from mmserve_worker.calls import Handler
from mmserve_worker.handlers.errors import LoadError
from tests import models_for_tests as models
from tests.worker.coded import answer
from tests.worker.djl_models import Load, json_of

IMPORTS = """
from djl_python.input_parser import input_formatter, init_handler, prediction_handler
from djl_python.output_formatter import output_formatter
import numpy as np
"""
ENTRY = "djl_python.sklearn_handler"


@pytest.fixture
def formatted(load: Load, tmp_path: Path) -> Load:
    """Loads a model.py of decorated functions beside a LinearRegression of 2x + 1."""
    joblib.dump(models.linear(), tmp_path / "model.joblib")

    def load_formatted(source: str, **options: str) -> Handler:
        return load(IMPORTS + source, **options)

    return load_formatted


@pytest.mark.parametrize("options", [{}, {"option_entryPoint": ENTRY}, {"option_entryPoint": "model.py"}])
def test_an_input_formatter_makes_the_rows(formatted: Load, options: dict[str, str]) -> None:
    source = """
@input_formatter
def rows(inputs):
    return np.array(inputs.get_as_json()["deep"]["rows"])
"""
    handler = formatted(source, **options)
    assert json_of(answer(handler, b'{"deep": {"rows": [[1], [2]]}}')) == {"predictions": [3.0, 5.0]}
    assert answer(handler, b'{"deep": {"rows": [[1], [2]]}}', accept="text/csv").body == b"3.0\n5.0\n"
    assert answer(handler, b"{}").status == 424


@pytest.mark.parametrize("decorator", ["@input_formatter", "@input_formatter()"])
def test_an_input_formatter_may_ask_for_the_content_type(formatted: Load, decorator: str) -> None:
    source = f"""
{decorator}
def rows(inputs, content_type=None):
    return np.array([[float(content_type == "x/y")]])
"""
    assert json_of(answer(formatted(source), b"?", content_type="x/y")) == {"predictions": [3.0]}


@pytest.mark.parametrize(
    ("result", "content_type", "body"),
    [
        ("Output().add('text')", "text/plain", b"text"),
        ("{'sum': float(prediction.sum())}", "application/json", b'{"sum":8.0}'),
        ("','.join(map(str, prediction))", "text/plain", b"3.0,5.0"),
        ("Output().add_property('Content-Type', 'x/y').add(b'z')", "x/y", b"z"),
    ],
)
def test_an_output_formatter_makes_the_answer(formatted: Load, result: str, content_type: str, body: bytes) -> None:
    handler = formatted(f"@output_formatter\ndef written(prediction):\n    return {result}\n")
    reply = answer(handler, b"[[1], [2]]", accept="x/anything")
    assert (reply.status, reply.content_type, reply.body) == (200, content_type, body)
    refused = answer(handler, b"[[1, 2, 3]]")
    assert (refused.status, refused.error_type) == (400, "BadRequestException")


@pytest.mark.parametrize("parameters", ["X, model", "model, X", "data, estimator"])
def test_a_prediction_handler_predicts(formatted: Load, parameters: str) -> None:
    data, model = ("X", "model") if "X" in parameters else ("data", "estimator")
    source = f"@prediction_handler\ndef predicted({parameters}):\n    return {model}.predict({data}) * 10\n"
    assert json_of(answer(formatted(source, option_entryPoint=ENTRY), b"[[1]]")) == {"predictions": [30.0]}


def test_an_init_handler_loads_the_model(formatted: Load) -> None:
    source = """
@init_handler
def loaded(model_dir):
    return {"dir": model_dir}

@input_formatter
def rows(inputs):
    return inputs.get_as_json()

@prediction_handler
def predicted(X, model):
    return [len(model["dir"]) > 0, X]

@output_formatter
def written(prediction):
    return prediction
"""
    assert json_of(answer(formatted(source), b"[7]")) == [True, [7]]
    with pytest.raises(LoadError, match="loaded, the init_handler, has returned no model"):
        formatted("@init_handler\ndef loaded(model_dir):\n    pass\n")


def test_without_decorated_functions_the_handler_is_the_server_s(formatted: Load) -> None:
    handler = formatted("helper = 1\n", option_entryPoint=ENTRY)
    assert json_of(answer(handler, b"[[1]]")) == {"predictions": [3.0]}
    with pytest.raises(LoadError, match=r"model.py has no function handle\(inputs\)"):
        formatted("helper = 1\n")


def test_a_call_for_another_method_reaches_it_or_is_refused(formatted: Load) -> None:
    handler = formatted("@output_formatter\ndef written(prediction):\n    return prediction.tolist()\n")
    assert answer(handler, b"[[1]]", method="predict").body == b"[3.0]"
    assert answer(handler, b"[[1]]", method="predict_proba").status == 400


def test_a_handler_of_the_model_s_own_finds_them_in_its_first_call(load: Load) -> None:
    source = """
        from djl_python.input_parser import input_formatter
        from djl_python.output_formatter import output_formatter

        class Proxy:
            def __call__(self): pass
            def __getattribute__(self, name): raise RuntimeError("there is nothing behind it now")

        proxy = Proxy()

        @output_formatter
        def framed(prediction): return f"<{prediction}>"

        def handle(inputs):
            global found
            if inputs.is_empty():
                found = inputs.get_properties()
                return None
            return Output().add(found["output_formatter"]("input_formatter" in found))
    """
    assert answer(load(source)).body == b"<False>"
