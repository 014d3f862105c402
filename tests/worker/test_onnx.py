"""ONNX files: inputs as they declare them, outputs as ONNX Runtime gives them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mmserve_worker import handlers
from mmserve_worker.calls import Handler, ModelSpec
from mmserve_worker.handlers.errors import LoadError
from tests.worker.handled import answered, call, predictions, refused

with warnings.catch_warnings():
    # It uses what newer versions of onnx warn of.
    warnings.simplefilter("ignore")
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
LABELS = np.where(X[:, 0] > 0, "yes", "no")
ROWS = X[:5].tolist()
UNEVEN = "the inputs have different numbers of rows"


def written(directory: Path, model: Any, *converted: Any, **options: Any) -> Handler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = to_onnx(model, *converted, **options)
    return saved(directory, graph)


def saved(directory: Path, graph: Any) -> Handler:
    (directory / "model.onnx").write_bytes(graph.SerializeToString())
    return handlers.load(ModelSpec("the-model", str(directory)))


def graph_of(operator: str, inputs: list[Any], output: Any) -> Any:
    node = helper.make_node(operator, [item.name for item in inputs], [output.name])
    graph = helper.make_graph([node], "graph", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tensor(name: str, *shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def outputs_of(directory: Path, **inputs: Any) -> Any:
    return onnxruntime.InferenceSession(str(directory / "model.onnx")).run(None, inputs)


@pytest.mark.parametrize("rows", [X[:5], X[:5].astype(np.float64), (X[:5] * 9).astype(int), X[:5] > 0])
def test_numbers_become_the_dtype_of_the_input(tmp_path: Path, rows: Any) -> None:
    handler = written(tmp_path, LinearRegression().fit(X, X[:, 1]), X[:1])
    expected = outputs_of(tmp_path, X=rows.astype(np.float32))[0].tolist()
    assert answered(handler, rows.tolist()) == expected
    file = io.BytesIO()
    np.save(file, rows)
    assert answered(handler, file.getvalue(), content_type="application/x-npy") == expected
    assert answered(handler, rows[0].tolist()) == expected[:1]


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_gives_labels_and_probabilities(tmp_path: Path, zipmap: bool) -> None:
    model = LogisticRegression().fit(X, LABELS)
    handler = written(tmp_path, model, X[:1], options={"zipmap": zipmap})
    assert answered(handler, ROWS) == model.predict(X[:5]).tolist()
    probabilities = answered(handler, ROWS, method="predict_proba")
    np.testing.assert_allclose(probabilities, model.predict_proba(X[:5]), rtol=1e-5)


def test_every_output_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, LABELS)
    handler = written(tmp_path, model, X[:1])
    labels, dictionaries = outputs_of(tmp_path, X=X[:5])
    assert answered(handler, ROWS, method="output_label") == labels.tolist()
    assert answered(handler, ROWS, method="output_probability") == dictionaries
    assert refused(handler, ROWS, method="output_probability", accept="text/csv")[0] == 406
    assert "has predict, predict_proba, output_label, output_probability" in refused(handler, ROWS, method="no")[2]


def columns(directory: Path) -> tuple[Handler, Any, pd.DataFrame]:
    table = pd.DataFrame({"age": [20, 30, 40, 50], "city": ["Oslo", "Rome", "Oslo", "Bonn"], "size": [1.5, 2, 3, 9]})
    encoder = OneHotEncoder(handle_unknown="ignore")
    parts = make_column_transformer((StandardScaler(), ["age", "size"]), (encoder, ["city"]))
    model = make_pipeline(parts, LogisticRegression()).fit(table, [0, 1, 0, 1])
    kinds = {"age": Int64TensorType, "city": StringTensorType, "size": FloatTensorType}
    types = [(name, kind([None, 1])) for name, kind in kinds.items()]
    return written(directory, model, initial_types=types), model, table


def test_several_inputs_are_records_or_columns_or_arrays_by_name(tmp_path: Path) -> None:
    handler, model, table = columns(tmp_path)
    expected = model.predict_proba(table)
    asked = {"method": "predict_proba"}
    npz = io.BytesIO()
    np.savez(npz, age=table[["age"]], city=np.array(table[["city"]].values.tolist()), size=table[["size"]])
    for body, content_type in (
        (table.to_dict("records"), ""),
        (table[["size", "age", "city"]].to_dict("records"), ""),
        (table.values.tolist(), ""),
        (table[["city", "size", "age"]].to_csv(index=False).encode(), "text/csv"),
        (npz.getvalue(), "application/x-npz"),
    ):
        answer = answered(handler, body, content_type=content_type, **asked)
        np.testing.assert_allclose(answer, expected, rtol=1e-5)
    alone = handler.answer([call([row], **asked) for row in table.to_dict("records")])
    np.testing.assert_allclose([predictions(reply)[0] for reply in alone], expected, rtol=1e-5)


def test_what_the_inputs_cannot_be_is_the_caller_s_fault(tmp_path: Path) -> None:
    handler, _, table = columns(tmp_path)
    uneven, lacking = io.BytesIO(), io.BytesIO()
    np.savez(uneven, age=[[1], [2]], size=[[1.0]], city=[["x"]])
    np.savez(lacking, age=[[1]], size=[[1.0]])
    for body, content_type, message in (
        ([{"age": 1, "city": "x"}], "", 'expected the inputs "age", "city", "size", each of them once'),
        ([[1, "x"]], "", "rows of 2 values were sent: the inputs are age [1], city [1], size [1]"),
        ([{"age": 1.5, "city": "x", "size": 2}], "", '"age" takes int64, and other values were sent'),
        ([{"age": None, "city": "x", "size": 2}], "", '"age": cannot convert float NaN to integer'),
        ([{"age": 1, "city": None, "size": 2}], "", '"city" takes strings'),
        ([{"age": 1, "city": "x", "size": "y"}], "", "\"size\": could not convert string to float: 'y'"),
        (uneven.getvalue(), "application/x-npz", f"{UNEVEN}: age has 2, city has 1, size has 1"),
        (lacking.getvalue(), "application/x-npz", 'the npz file has no array called "city"'),
    ):
        assert refused(handler, body, content_type=content_type) == (400, "BadRequestException", message)
    replies = handler.answer([call([[1, "x", 2]]), call([["a", "x", 2]]), call(table.to_dict("records"))])
    assert [reply.status for reply in replies] == [200, 400, 200]


def test_arrays_of_more_dimensions_are_taken_as_they_are(tmp_path: Path) -> None:
    graph = graph_of("Relu", [tensor("image", "n", 2, 3)], tensor("out", "n", 2, 3))
    handler = saved(tmp_path, graph)
    images = RNG.normal(size=(4, 2, 3)).astype(np.float32)
    expected = np.maximum(images, 0)
    np.testing.assert_allclose(answered(handler, images.tolist()), expected, rtol=1e-6)
    np.testing.assert_allclose(answered(handler, images[0].tolist()), expected[:1], rtol=1e-6)
    assert refused(handler, [1.0, 2.0])[2] == '"image" takes 3 dimensions: 1 were sent'
    status, _, message = refused(handler, [[[1.0, 2.0]]])
    assert (status, "image" in message, "Got: 1 Expected: 2" in message) == (400, True, True)
    assert message.endswith("Got: 2 Expected: 3")


def test_texts_are_a_row_each(tmp_path: Path) -> None:
    texts = tensor("text", "n", 1, kind=TensorProto.STRING)
    handler = saved(tmp_path, graph_of("Identity", [texts], tensor("out", "n", 1, kind=TensorProto.STRING)))
    assert answered(handler, ["good", "bad"]) == [["good"], ["bad"]]
    assert answered(handler, b'["good"]\n["bad"]', content_type="application/jsonlines") == [["good"], ["bad"]]


def test_rows_of_a_model_for_one_are_answered_one_by_one(tmp_path: Path) -> None:
    graph = graph_of("Relu", [tensor("x", 1, 2)], tensor("out", 1, 2))
    handler = saved(tmp_path, graph)
    assert answered(handler, [[1.0, -1.0], [-2.0, 2.0]]) == [[1.0, 0.0], [0.0, 2.0]]
    replies = handler.answer([call([[1.0, -1.0]]), call([[-2.0, 2.0]])])
    assert [predictions(reply) for reply in replies] == [[[1.0, 0.0]], [[0.0, 2.0]]]


def test_a_batch_is_answered_as_each_caller_alone(tmp_path: Path) -> None:
    handler = written(tmp_path, LogisticRegression().fit(X, LABELS), X[:1])
    calls = [call(X[i : i + 1 + i % 3].tolist(), method="predict_proba" if i % 2 else "") for i in range(9)]
    calls += [call([[1, 2]]), call([]), call([{"a": 1, "b": 2, "c": 3}])]
    together = handler.answer(calls)
    assert [reply.status for reply in together] == [200] * 9 + [400, 200, 400]
    for one, reply in zip(calls[:9], together, strict=False):
        alone = predictions(handler.answer([one])[0])
        if one.method:
            np.testing.assert_allclose(predictions(reply), alone, rtol=1e-5)
        else:
            assert predictions(reply) == alone


def test_what_is_no_model_of_it_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(LoadError, match=r"model\.onnx cannot be loaded: InvalidProtobuf"):
        handlers.load(ModelSpec("the-model", str(tmp_path)))
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    with pytest.raises(LoadError, match="the input s of the ONNX model is a seq"):
        saved(tmp_path, graph_of("SequenceLength", [sequence], tensor("out", kind=TensorProto.INT64)))
