"""What callers of a scikit-learn model get, one call at a time."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, SparsePCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import CategoricalNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from mmserve_worker.calls import Handler
from mmserve_worker.codecs import limits
from mmserve_worker.handlers import results
from mmserve_worker.handlers.errors import LoadError
from tests.worker.handled import answered, call, loaded, predictions, refused

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
BAD_REQUEST = (400, "BadRequestException")


class Failing(BaseEstimator):  # type: ignore[misc]
    """A model of the owner's, that does what it is told to."""

    def __init__(self, error: Any = None, answer: Any = None) -> None:
        self.error = error
        self.answer = answer

    def predict(self, rows: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer


class Labels(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers what it is given."""

    def predict(self, rows: Any) -> Any:
        return [f"{type(row[0]).__name__} {row[0]}" for row in rows]


class Doubtful(BaseEstimator):  # type: ignore[misc]
    def predict(self, rows: Any) -> Any:
        warnings.warn(f"row {rows[0][0]}", stacklevel=1)
        return rows[:, 0]


@pytest.fixture
def linear(tmp_path: Path) -> Handler:
    return loaded(tmp_path, LinearRegression().fit(X, X @ [1.0, 2.0, 3.0]))


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"age": [20, 30, 40, 50], "city": ["Oslo", "Rome", "Oslo", "Bonn"], "size": [1.5, 2.5, 3.5, 9.0]}
    )


def by_name() -> Any:
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "size"]), ("texts", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    return make_pipeline(columns, LinearRegression()).fit(frame(), [1.0, 2.0, 3.0, 5.0])


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


# --- feature names


@pytest.mark.parametrize("rows", [[[35, "Oslo", 2.0], [21, "Nowhere", 1]], [[35.5, None, 2.0]], [[20, None, 1]]])
def test_columns_selected_by_name_take_rows_and_records(tmp_path: Path, rows: list[list[Any]]) -> None:
    model = by_name()
    handler = loaded(tmp_path, model)
    expected = model.predict(pd.DataFrame(rows, columns=["age", "city", "size"])).tolist()
    assert answered(handler, rows) == expected
    records = [dict(zip(("size", "city", "age"), reversed(row), strict=True)) for row in rows]
    for body in (records, {"instances": records}, {"inputs": records}):
        assert answered(handler, body) == expected


def test_csv_takes_its_columns_from_the_header(tmp_path: Path) -> None:
    handler = loaded(tmp_path, by_name())
    expected = answered(handler, [[35, "Oslo", 2.0], [40, "Rome", 3.0]])
    for body in (
        b"35,Oslo,2.0\n40,Rome,3.0",
        b"age,city,size\n35,Oslo,2.0\n40,Rome,3.0",
        b"size,city,age\n2,Oslo,35\n3,Rome,40",
    ):
        assert answered(handler, body, content_type="text/csv") == expected


def test_a_callable_selector_is_a_selection_by_name(tmp_path: Path) -> None:
    selector = make_column_selector(dtype_include=np.number)
    columns = ColumnTransformer([("numbers", StandardScaler(), selector)], remainder="drop")
    model = make_pipeline(columns, Ridge()).fit(frame(), [1.0, 2.0, 3.0, 4.0])
    expected = model.predict(frame()).tolist()
    assert answered(loaded(tmp_path, model), frame().to_dict("records")) == expected


def test_code_of_the_owner_s_that_was_fitted_on_a_frame_gets_one(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(add_columns), LinearRegression()).fit(
        frame()[["age", "size"]], [1, 2, 3, 4]
    )
    expected = model.predict(frame()[["age", "size"]]).tolist()
    assert answered(loaded(tmp_path, model), frame()[["age", "size"]].to_numpy().tolist()) == expected


def add_columns(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(both=table["age"] * table["size"])


def test_a_model_with_names_takes_plain_rows_without_a_warning(tmp_path: Path) -> None:
    numbers = frame()[["age", "size"]]
    model = LinearRegression().fit(numbers, [1.0, 2.0, 3.0, 4.0])
    handler = loaded(tmp_path, model)
    assert answered(handler, numbers.to_numpy().tolist()) == model.predict(numbers).tolist()
    assert answered(handler, [{"size": 1.5, "age": 20}]) == model.predict(numbers[:1]).tolist()


def test_a_mixed_table_reaches_an_encoder_with_the_types_of_its_columns(tmp_path: Path) -> None:
    encoder = OneHotEncoder(sparse_output=False).fit(frame())
    handler = loaded(tmp_path, encoder)
    table = pd.DataFrame([[20, "Rome", 9.0]], columns=list(frame().columns))
    assert answered(handler, [[20, "Rome", 9.0]]) == encoder.transform(table).tolist()


def test_missing_and_unknown_names_are_named(tmp_path: Path) -> None:
    handler = loaded(tmp_path, by_name())
    assert refused(handler, [{"age": 3, "city": "Oslo"}]) == (*BAD_REQUEST, 'missing features: "size"')
    record = {"age": 3, "city": "Oslo", "size": 1, "colour": "red"}
    status, _, message = refused(handler, [record])
    assert status == 400
    assert '"colour"' in message
    assert refused(handler, b"age,age,size\n1,2,3", content_type="text/csv")[0] == 400


def test_records_are_no_use_to_a_model_without_names(linear: Handler) -> None:
    status, _, message = refused(linear, [{"a": 1, "b": 2, "c": 3}])
    assert status == 400
    assert "no feature names" in message


def test_names_of_a_csv_header_are_left_out_for_a_model_without_names(linear: Handler) -> None:
    assert answered(linear, b"a,b,c\n1,2,3", content_type="text/csv") == answered(linear, [[1, 2, 3]])


# --- texts


def test_every_string_is_a_sample_to_a_text_model(tmp_path: Path) -> None:
    texts = ["good film", "bad film", "good", "bad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    handler = loaded(tmp_path, model)
    expected = model.predict(texts[:3]).tolist()
    assert answered(handler, texts[:3]) == expected
    assert answered(handler, {"instances": texts[:3]}) == expected
    assert answered(handler, [[text] for text in texts[:3]]) == expected
    assert answered(handler, b"good film\nbad film\ngood\n", content_type="text/csv") == expected
    assert answered(handler, b'"good film"\n"bad film"\n"good"', content_type="application/jsonlines") == expected
    assert refused(handler, ["good", None])[:2] == BAD_REQUEST
    file = io.BytesIO()
    np.save(file, np.array(texts[:3]))
    assert answered(handler, file.getvalue(), content_type="application/x-npy") == expected


def test_strings_are_one_row_to_a_model_with_features(tmp_path: Path) -> None:
    handler = loaded(tmp_path, OneHotEncoder().fit([["a", "x"], ["b", "y"]]))
    assert answered(handler, ["a", "y"]) == [[1, 0, 0, 1]]


# --- failures


@pytest.mark.parametrize(
    ("error", "status", "error_type", "message"),
    [
        (ValueError("mine\nand more"), 424, "ValueError", "mine"),
        (TypeError("mine"), 424, "TypeError", "mine"),
        (KeyError("x"), 424, "KeyError", "'x'"),
        (RuntimeError(), 424, "RuntimeError", "RuntimeError"),
        (SystemExit(3), 424, "SystemExit", "3"),
        (MemoryError("too much"), 507, "MemoryError", "too much"),
        (RecursionError("deep"), 424, "RecursionError", "deep"),
    ],
)
def test_what_a_model_raises_is_told_and_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    status: int,
    error_type: str,
    message: str,
) -> None:
    assert refused(loaded(tmp_path, Failing(error)), [[1]]) == (status, error_type, message)
    assert "the-model" in caplog.text
    assert "Traceback" in caplog.text


def test_errors_of_the_owner_s_functions_are_not_the_caller_s(tmp_path: Path) -> None:
    handler = loaded(tmp_path, FunctionTransformer(not_today))
    assert refused(handler, [[1]]) == (424, "ValueError", "not today")


def not_today(rows: Any) -> Any:
    raise ValueError("not today")


def test_a_model_that_was_never_fitted_is_not_the_caller_s_fault(tmp_path: Path) -> None:
    assert refused(loaded(tmp_path, LinearRegression()), [[1]])[:2] == (424, "NotFittedError")


def test_other_errors_inside_scikit_learn_are_failures(tmp_path: Path) -> None:
    handler = loaded(tmp_path, CategoricalNB().fit([[0], [1]], [0, 1]))
    assert refused(handler, [[7]])[:2] == (424, "IndexError")


def test_strings_in_a_numeric_column_of_a_frame_are_refused(tmp_path: Path) -> None:
    assert refused(loaded(tmp_path, by_name()), [["old", "Oslo", 1.0]])[:2] == BAD_REQUEST


# --- warnings


def test_a_warning_is_logged_once_however_often_it_is_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        handler = loaded(tmp_path, Doubtful())
        for number in range(5):
            answered(handler, [[number]])
    assert [record.getMessage() for record in caplog.records] == ["model the-model: UserWarning: row 0"]


def test_values_keep_their_types_on_the_way_to_the_model(tmp_path: Path) -> None:
    handler = loaded(tmp_path, Labels())
    assert answered(handler, [["a", 1], [2, 3], [2.5, 3], [True, 1]]) == ["str a", "int 2", "float 2.5", "bool True"]
