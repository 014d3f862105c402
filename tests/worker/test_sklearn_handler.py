"""What callers of a scikit-learn model get, one call at a time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA, SparsePCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from mmserve_worker.calls import Handler
from mmserve_worker.codecs import limits
from mmserve_worker.handlers import results
from mmserve_worker.handlers.errors import LoadError
from tests.worker.fitted import BAD_REQUEST, Failing, X, Y
from tests.worker.handled import answered, call, loaded, predictions, refused


def test_an_answer_is_what_the_model_predicts(linear: Handler) -> None:
    model = LinearRegression().fit(X, X @ [1.0, 2.0, 3.0])
    assert answered(linear, X[:5].tolist()) == model.predict(X[:5]).tolist()


def test_an_array_of_numbers_is_one_row(linear: Handler) -> None:
    assert answered(linear, [1.0, 2.0, 3.0]) == answered(linear, [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
def test_other_content_types_say_the_same(linear: Handler, content_type: str) -> None:
    body = b"1,2,3\n4,5,6\n" if content_type == "text/csv" else b"[1, 2, 3]\n[4, 5, 6]\n"
    assert answered(linear, body, content_type=content_type) == answered(linear, [[1, 2, 3], [4, 5, 6]])


def test_no_rows_have_no_answers_and_do_not_reach_the_model(tmp_path: Path) -> None:
    handler = loaded(tmp_path, Failing(RuntimeError("called")))
    assert answered(handler, []) == []
    file = io.BytesIO()
    np.save(file, np.empty((0, 3)))
    assert answered(handler, file.getvalue(), content_type="application/x-npy") == []
    (reply,) = handler.answer([call([], accept="text/csv")])
    assert (reply.status, reply.body) == (200, b"")


def test_a_wrong_number_of_features_is_told_as_scikit_learn_would(linear: Handler) -> None:
    message = "X has 2 features, but LinearRegression is expecting 3 features as input."
    assert refused(linear, [[1, 2]]) == (*BAD_REQUEST, message)
    with pytest.raises(ValueError, match="X has 2 features") as raised:
        LinearRegression().fit(X, Y).predict([[1, 2]])
    assert str(raised.value) == message
    assert refused(linear, [[]])[:2] == BAD_REQUEST


@pytest.mark.parametrize("body", [[["a", "b", "c"]], [[None, 1, 2]], [[[1, 2, 3]]], [[1e400, 1, 1]]])
def test_what_scikit_learn_refuses_is_the_caller_s_fault(linear: Handler, body: Any) -> None:
    assert refused(linear, body)[:2] == BAD_REQUEST


def test_a_pipeline_with_an_imputer_takes_null(tmp_path: Path) -> None:
    handler = loaded(tmp_path, make_pipeline(SimpleImputer(), LinearRegression()).fit(X, Y))
    assert len(answered(handler, [[1, None, 3]])) == 1


def test_errors_of_the_codecs_are_passed_on(linear: Handler) -> None:
    assert refused(linear, b"<a>", content_type="text/xml")[0] == 415
    assert refused(linear, [[1, 2, 3]], accept="text/html")[0] == 406
    assert refused(linear, b"")[:2] == BAD_REQUEST


# --- methods


def test_a_caller_may_name_a_method(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    handler = loaded(tmp_path, model)
    rows = X[:3].tolist()
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        assert answered(handler, rows, method=method) == getattr(model, method)(X[:3]).tolist()


def test_the_owner_may_name_the_default_method(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    handler = loaded(tmp_path, model, {"option.method": "predict_proba"})
    assert answered(handler, X[:1].tolist()) == model.predict_proba(X[:1]).tolist()
    with pytest.raises(LoadError, match="this model has predict, predict_proba"):
        loaded(tmp_path, model, {"option.method": "apply"})


@pytest.mark.parametrize("method", ["transform", "fit", "__class__", "score", "set_params"])
def test_other_methods_are_refused_with_those_there_are(linear: Handler, method: str) -> None:
    status, error_type, message = refused(linear, [[1, 2, 3]], method=method)
    assert (status, error_type) == BAD_REQUEST
    assert message.endswith("this model has predict")


def test_what_depends_on_a_parameter_is_asked_of_the_model(tmp_path: Path) -> None:
    handler = loaded(tmp_path, SVC().fit(X, Y))
    assert "decision_function" in refused(handler, [[1, 2, 3]], method="predict_proba")[2]


def test_transformers_transform(tmp_path: Path) -> None:
    model = PCA(2).fit(X)
    assert answered(loaded(tmp_path, model), X[:2].tolist()) == model.transform(X[:2]).tolist()
    assert answered(loaded(tmp_path, FunctionTransformer(np.log1p)), [[0.0, 0.0]]) == [[0.0, 0.0]]


# --- results of every kind


def test_several_outputs_are_an_entry_for_each_row(tmp_path: Path) -> None:
    model = RandomForestClassifier(3, random_state=0).fit(X, np.c_[Y, Y, 1 - Y])
    handler = loaded(tmp_path, model)
    expected = [[output[row].tolist() for output in model.predict_proba(X[:4])] for row in range(4)]
    assert answered(handler, X[:4].tolist(), method="predict_proba") == expected
    assert answered(handler, X[:4].tolist()) == model.predict(X[:4]).tolist()


def test_sparse_results_and_data_frames_are_rows_like_any_other(tmp_path: Path) -> None:
    encoder = OneHotEncoder().fit([["a"], ["b"]])
    assert answered(loaded(tmp_path, encoder), [["b"], ["a"]]) == [[0, 1], [1, 0]]
    scaler = StandardScaler().set_output(transform="pandas").fit(X)
    expected = StandardScaler().fit(X).transform(X[:2]).tolist()
    assert answered(loaded(tmp_path, scaler), X[:2].tolist()) == expected


def test_a_sparse_result_that_would_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = loaded(tmp_path, HashingVectorizer(n_features=1000))
    assert limits.largest_expansion() > 1000
    assert len(answered(handler, ["text"])[0]) == 1000
    monkeypatch.setattr(results, "largest_expansion", lambda: 1000)
    assert refused(handler, ["text"])[:2] == (507, "MemoryError")


def test_one_row_of_an_estimator_that_drops_the_axis_is_a_row(tmp_path: Path) -> None:
    model = SparsePCA(2, random_state=0).fit(X)
    assert np.shape(answered(loaded(tmp_path, model), X[:1].tolist())) == (1, 2)


def test_labels_keep_their_types(tmp_path: Path) -> None:
    for labels in (np.array(["no", "yes"]), np.array(["no", "yes"], object), np.array([False, True])):
        handler = loaded(tmp_path, LogisticRegression().fit(X, labels[Y]))
        assert answered(handler, X[:2].tolist()) == labels[Y[:2]].tolist()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [([1, 2], [1, 2]), (["a", 1], ["a", 1]), ([[1, 2], [3, 4]], [[1, 2], [3, 4]]), ([[1], [2, 3]], [[1], [2, 3]]),
     ((1, 2), [1, 2]), (pd.Series([1.5, 2.5]), [1.5, 2.5]), (np.ma.array([1, 2]), [1, 2])],
)  # fmt: skip
def test_models_of_the_owner_may_return_what_they_like(tmp_path: Path, answer: Any, expected: Any) -> None:
    assert answered(loaded(tmp_path, Failing(answer=answer)), [[1], [2]]) == expected


@pytest.mark.parametrize("answer", [None, 3.0, {"a": 1}, "text"])
def test_what_is_no_list_of_answers_is_the_model_s_failure(tmp_path: Path, answer: Any) -> None:
    status, error_type, message = refused(loaded(tmp_path, Failing(answer=answer)), [[1]])
    assert (status, error_type) == (424, "ModelException")
    assert "not a value for each row" in message


def test_a_large_binary_answer_is_not_copied(tmp_path: Path) -> None:
    handler = loaded(tmp_path, FunctionTransformer())
    file = io.BytesIO()
    np.save(file, np.eye(3))
    request = call(file.getvalue(), content_type="application/x-npy", accept="application/x-npy")
    (reply,) = handler.answer([request])
    assert isinstance(reply.body, tuple)
    assert isinstance(request.body, memoryview)
    assert np.shares_memory(np.frombuffer(reply.body[1], np.uint8), np.frombuffer(request.body, np.uint8))
    np.testing.assert_array_equal(np.load(io.BytesIO(b"".join(reply.body))), np.eye(3))


def test_models_that_write_to_their_input_get_a_copy(tmp_path: Path) -> None:
    def double(rows: Any) -> Any:
        rows *= 2
        return rows

    file = io.BytesIO()
    np.save(file, np.eye(2))
    body = file.getvalue()
    for model in (StandardScaler(copy=False).fit([[0.0, 0.0], [2.0, 2.0]]), FunctionTransformer(double)):
        handler = loaded_in_process(model)
        request = call(body, content_type="application/x-npy")
        (reply,) = handler.answer([request])
        assert predictions(reply) == model.transform(np.eye(2)).tolist()
        assert bytes(request.body) == body


def loaded_in_process(model: Any) -> Handler:
    """For models that cannot be pickled."""
    from mmserve_worker.handlers.rows import RowsHandler

    return RowsHandler("the-model", model, {})
