"""An inference.py written for SageMaker's containers runs here unmodified."""

from __future__ import annotations

import io
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mmserve_worker.calls import Reply
from mmserve_worker.handlers.errors import LoadError
from tests.models_for_tests import linear
from tests.worker.coded import Coded, answer, body_of, said

# As AWS's examples for scikit-learn have it.
SCRIPT = """
    import argparse, json, os
    import joblib
    import numpy as np

    def model_fn(model_dir):
        return joblib.load(os.path.join(model_dir, "model.joblib"))

    def input_fn(request_body, request_content_type):
        assert isinstance(request_body, str)
        if request_content_type == "application/json":
            return np.array(json.loads(request_body)["Input"])
        raise ValueError("This model only supports application/json input")

    def predict_fn(input_data, model):
        return model.predict(input_data)

    def output_fn(prediction, content_type):
        return json.dumps({"Output": prediction.tolist()}), content_type
"""


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize("path", ["inference.py", "code/inference.py", "model.py"])
def test_a_script_of_four_functions_answers(coded: Coded, path: str) -> None:
    joblib.dump(linear(), coded.directory / "model.joblib")
    handler = coded.load({path: SCRIPT})
    reply = answer(handler, b'{"Input": [[1], [2]]}', content_type="application/json", accept="*/*")
    assert reply == Reply(200, "application/json", b'{"Output": [3.0, 5.0]}')
    assert answer(handler, b"<a>", content_type="text/xml").status == 424


def test_a_file_of_any_name_may_be_the_entry_point(coded: Coded) -> None:
    joblib.dump(linear(), coded.directory / "model.joblib")
    handler = coded.load({"serve_it.py": SCRIPT}, {"option.entryPoint": "serve_it.py"})
    assert answer(handler, b'{"Input": [[1]]}').body == b'{"Output": [3.0]}'


def test_what_is_missing_is_done_as_the_container_would(coded: Coded) -> None:
    joblib.dump(linear(), coded.directory / "model.joblib")
    handler = coded.load(
        {"inference.py": "def pre_model_fn(model_dir): pass\ndef input_fn_of_old(): pass\n" + MODEL_FN}
    )
    for body, content_type in [
        (b"[[1], [2]]", "application/json"),
        (b"1\n2\n", "text/csv"),
        (npy([[1.0], [2.0]]), "application/x-npy"),
    ]:
        assert answer(handler, body, content_type=content_type) == Reply(200, "application/json", b"[3.0, 5.0]")
    assert answer(handler, b"[[1], [2]]", accept="text/csv") == Reply(200, "text/csv", b"3.0\n5.0\n")
    reply = answer(handler, b"[[1], [2]]", accept="application/x-npy")
    assert reply.content_type == "application/x-npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(body_of(reply))), [3.0, 5.0])
    assert answer(handler, b"[1]").body == b"[3.0]"


MODEL_FN = """
import joblib, os
def model_fn(where):
    return joblib.load(os.path.join(where, "model.joblib"))
"""


def test_without_model_fn_the_model_file_is_loaded(coded: Coded) -> None:
    joblib.dump(linear(), coded.directory / "model.joblib")
    handler = coded.load({"inference.py": "def output_fn(prediction, accept): return {'found': prediction.tolist()}"})
    assert answer(handler, b"[[1]]").body == b'{"found": [3.0]}'


def test_without_an_input_fn_numbers_are_of_single_precision_and_one_row_may_stand_alone(coded: Coded) -> None:
    source = """
        def model_fn(d): return None
        def predict_fn(data, model):
            data += 0  # It may be written to.
            return [str(data.dtype), list(data.shape)]
    """
    handler = coded.load({"inference.py": source})
    assert answer(handler, b"[1, 2]").body == b'["float32", [1, 2]]'
    assert answer(handler, b"1,2\n3,4", content_type="text/csv").body == b'["float32", [2, 2]]'
    assert answer(handler, b"1\n2", content_type="text/csv").body == b'["float32", [2, 1]]'
    assert answer(handler, npy([[1, 2]]), content_type="application/x-npy").body == b'["int64", [1, 2]]'


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (npy(np.array([{}], object)), "application/x-npy", 400),
        (b"{", "application/json", 400),
        (b'[{"a": 1}]', "application/json", 400),
        (b"\xff", "text/csv", 400),
        (b"<a>", "text/xml", 415),
    ],
)
def test_what_cannot_be_decoded_is_the_callers_fault(coded: Coded, body: bytes, content_type: str, status: int) -> None:
    handler = coded.load({"inference.py": "def model_fn(d): return None\ndef predict_fn(data, model): return [1]"})
    assert answer(handler, body, content_type=content_type).status == status
    assert answer(handler, b"[1]", accept="image/png").status == 406


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", "str"),
        ("text/csv; charset=utf-8", "str"),
        ("application/x-npy", "bytes"),
        ("text/plain", "bytes"),
        ("", "str"),
    ],
)
def test_json_and_csv_come_as_text_and_all_else_as_bytes(coded: Coded, content_type: str, expected: str) -> None:
    source = """
        def model_fn(d): return None
        def input_fn(body, content_type): return [type(body).__name__, content_type]
        def predict_fn(data, model): return data
    """
    reply = answer(coded.load({"inference.py": source}), b"x", content_type=content_type)
    assert said(reply) == [expected, content_type or "application/json"]


def test_bytes_that_are_no_text_are_refused(coded: Coded) -> None:
    handler = coded.load({"inference.py": "def model_fn(d): pass\ndef input_fn(b, c): return b"})
    assert answer(handler, b"\xff", content_type="text/csv").status == 400


@pytest.mark.parametrize(
    ("definitions", "expected"),
    [
        ("model_fn = lambda: 'm'; input_fn = lambda x: x; predict_fn = lambda d, m: d + m", "[1]m"),
        ("model_fn = lambda d, context: context.model_name; predict_fn = lambda d, m: m", "the-model"),
        ("input_fn = lambda b, ct='x', encoding='y': encoding; predict_fn = lambda d: d", "y"),
        (
            "input_fn = lambda *a: str(len(a)); predict_fn = lambda d, m, context=None: d + context.model_name",
            "2the-model",
        ),
        ("class Predict:\n  def __call__(self, data, model): return 'called'\npredict_fn = Predict()", "called"),
    ],
)
def test_functions_get_as_much_as_they_take(coded: Coded, definitions: str, expected: str) -> None:
    source = f"model_fn = lambda d: None\n{definitions}\noutput_fn = lambda prediction: prediction"
    assert answer(coded.load({"inference.py": source})).body == expected.encode()


def test_a_transform_fn_does_it_all(coded: Coded) -> None:
    source = """
        def model_fn(model_dir): return "model"
        def transform_fn(model, body, content_type, accept, context):
            context.set_response_header(0, "X-Shard", "7")
            context.set_response_status(202, "Accepted", 0)
            return f"{model} {body} {content_type} {accept} {context.get_request_header(0, 'x-tenant')}"
    """
    handler = coded.load({"inference.py": source})
    reply = answer(handler, b"a", content_type="text/csv", accept="text/csv", headers={"X-Tenant": "b"})
    assert reply == Reply(202, "text/csv", b"model a text/csv text/csv b", {"X-Shard": "7"})
    with pytest.raises(LoadError, match="transform_fn does all that predict_fn"):
        coded.load({"inference.py": source + "\n        def predict_fn(d, m): pass"})


def test_functions_before_and_after_the_loading_are_called(coded: Coded) -> None:
    source = """
        seen = []
        def pre_model_fn(model_dir): seen.append("before")
        def model_fn(model_dir): seen.append("load"); return "model"
        def model_warmup_fn(model_dir, model): seen.append(f"warm {model}")
        def predict_fn(data, model): return seen
    """
    assert said(answer(coded.load({"inference.py": source}))) == ["before", "load", "warm model"]


@pytest.mark.parametrize(
    ("output", "accept", "content_type", "body"),
    [
        ("'text'", "text/csv", "text/csv", b"text"),
        ("b'bytes'", "application/x-thing", "application/x-thing", b"bytes"),
        ("'text'", "text/csv, */*;q=0.1", "text/csv", b"text"),
        ("'text'", "", "application/json", b"text"),
        ("('text', 'text/html')", "application/json", "text/html", b"text"),
        ("{'a': float('nan')}", "application/json", "application/json", b'{"a": null}'),
        ("__import__('numpy').arange(2)", "text/csv", "text/csv", b"0\n1\n"),
        ("__import__('pandas').Series([1, 2])", "application/json", "application/json", b"[1, 2]"),
    ],
)
def test_what_an_output_fn_may_return(coded: Coded, output: str, accept: str, content_type: str, body: bytes) -> None:
    source = f"def model_fn(d): pass\ndef predict_fn(d, m): pass\ndef output_fn(p, accept): return {output}"
    reply = answer(coded.load({"inference.py": source}), accept=accept)
    assert (reply.status, reply.content_type, reply.body) == (200, content_type, body)


def test_the_default_of_accept_is_the_owners(coded: Coded) -> None:
    source = "def model_fn(d): pass\ndef predict_fn(d, m): return [1, 2]"
    handler = coded.load({"inference.py": source}, {"option.default_accept": "text/csv"})
    assert answer(handler, accept="*/*").body == b"1\n2\n"


@pytest.mark.parametrize(
    ("expression", "status", "error_type", "message"),
    [
        ("raise ValueError('mine\\nand more')", 424, "ValueError", "mine"),
        ("raise SystemExit(3)", 424, "SystemExit", "3"),
        ("raise MemoryError('much')", 507, "MemoryError", "much"),
        ("return None", 424, "ModelException", "the model's code has returned None instead of an answer"),
        ("import sagemaker_inference.errors as e; raise e.BaseInferenceToolkitError(422, 'no such shop', 'x')", 422,
         "BaseInferenceToolkitError", "no such shop"),
    ],
)  # fmt: skip
def test_failures(
    coded: Coded, caplog: pytest.LogCaptureFixture, expression: str, status: int, error_type: str, message: str
) -> None:
    source = f"def model_fn(d): pass\ndef predict_fn(d, m): pass\ndef output_fn(p, a): {expression}"
    reply = answer(coded.load({"inference.py": source}))
    assert (reply.status, reply.error_type, reply.error, reply.body) == (status, error_type, message, b"")
    assert "Traceback" not in reply.error


def test_what_model_fn_raises_is_raised(coded: Coded) -> None:
    with pytest.raises(ZeroDivisionError):
        coded.load({"inference.py": "def model_fn(d): 1 / 0"})
    with pytest.raises(SyntaxError):
        coded.load({"inference.py": "def model_fn(d:"})


def test_modules_beside_the_script_are_found_and_the_script_runs_once(coded: Coded) -> None:
    coded.write({"code/helper.py": "import inference\nNAME = inference.NAME + ' and helper'", "runs.txt": ""})
    source = """
        with open("runs.txt", "a") as file: file.write("x")
        NAME = "script"
        import helper
        def model_fn(d): pass
        def predict_fn(d, m): return [helper.NAME]
    """
    assert answer(coded.load({"code/inference.py": source})).body == b'["script and helper"]'
    assert (coded.directory / "runs.txt").read_text() == "x"


def test_an_inference_py_without_any_of_the_functions_is_the_models_helper(coded: Coded) -> None:
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]), coded.directory / "model.joblib")
    handler = coded.load({"inference.py": "class Helper: pass"})
    assert "predictions" in said(answer(handler, b"[[1]]"))
