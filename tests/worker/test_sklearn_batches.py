"""Calls that wait together: one call of the model, and for each caller what it would have got alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import NMF
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mmserve_worker.calls import Handler
from mmserve_worker.handlers import anatomy
from mmserve_worker.handlers.rows import RowsHandler
from tests.worker.handled import answered, call, loaded, predictions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


class Counting:
    """Counts how often the model is called and with how much."""

    def __init__(self, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(handler, RowsHandler)
        self.sizes: list[int] = []
        for method, function in handler._methods.items():
            monkeypatch.setitem(handler._methods, method, self._counted(function))

    def _counted(self, function: Any) -> Any:
        def counted(rows: Any) -> Any:
            self.sizes.append(len(rows))
            return function(rows)

        return counted


@pytest.fixture
def classifier(tmp_path: Path) -> Handler:
    return loaded(tmp_path, LogisticRegression().fit(X, Y))


def test_alike_calls_are_one_call_of_the_model(classifier: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(classifier, monkeypatch)
    calls = [call(X[start : start + 1 + start % 3].tolist(), method="predict_proba") for start in range(32)]
    together = classifier.answer(calls)
    assert counting.sizes == [sum(1 + start % 3 for start in range(32))]
    for one, reply in zip(calls, together, strict=True):
        np.testing.assert_allclose(predictions(reply), predictions(classifier.answer([one])[0]), rtol=1e-12)


def test_a_row_that_is_not_in_an_array_of_rows_is_joined_as_well(
    classifier: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(classifier, monkeypatch)
    replies = classifier.answer([call([0.5, 1.5, 2.5]), call([[0.5, 1.5, 2.5], [-5.0, 0.5, 1.5]])])
    assert [predictions(reply) for reply in replies] == [[1], [1, 0]]
    assert counting.sizes == [3]


def test_integers_that_fit_into_no_integer_change_nobody_elses() -> None:
    class Echo:
        n_features_in_ = 1

        def predict(self, rows: Any) -> Any:
            return np.array([type(value).__name__ for value in rows.ravel()])

    handler = RowsHandler("echo", Echo(), {})
    bodies = [[[1]], [[2**63]], [[-1], [2**70]], [[2]]]
    together = handler.answer([call(body) for body in bodies])
    assert [predictions(reply) for reply in together] == [["int64"], ["uint64"], ["float64", "float64"], ["int64"]]


def test_unlike_calls_are_answered_side_by_side(classifier: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(classifier, monkeypatch)
    file = io.BytesIO()
    np.save(file, X[:2].astype(np.float32))
    calls = [
        call([[0.5, 1.5, 2.5]]),
        call([[1, 2, 3]]),
        call([[0.5, 1.5, 2.5]], method="predict_proba"),
        call([]),
        call(file.getvalue(), content_type="application/x-npy"),
        call(b"0.5,1.5,2.5", content_type="text/csv", accept="text/csv"),
        call([[1, 2]]),
        call(b"nonsense"),
        call([[4, 5, 6]]),
        call([[True, False, True]]),
    ]
    replies = classifier.answer(calls)
    assert [reply.status for reply in replies] == [200] * 6 + [400, 400, 200, 200]
    for one, reply in zip(calls, replies, strict=True):
        assert reply == classifier.answer([one])[0]
    # Floats as JSON and CSV; integers twice; probabilities; float32; booleans.
    assert sorted(counting.sizes[:5]) == [1, 1, 2, 2, 2]


def test_only_the_bad_one_of_a_batch_fails(classifier: Handler) -> None:
    good, bad = call([[0.5, 1.0, 1.5]]), call([[0.5, None, 1.5]])
    replies = classifier.answer([good, bad, good, bad])
    assert [reply.status for reply in replies] == [200, 400, 200, 400]
    assert "NaN" in replies[1].error
    assert replies[0] == replies[2]


def test_frames_are_joined_column_by_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"age": [20, 30, 40], "city": ["Oslo", "Rome", "Bonn"]})
    columns = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["city"]))
    handler = loaded(tmp_path, make_pipeline(columns, LinearRegression()).fit(table, [1.0, 2.0, 3.0]))
    counting = Counting(handler, monkeypatch)
    calls = [
        call([[25, "Rome"]]),
        call([{"city": "Oslo", "age": 31}]),
        call(b"city,age\nBonn,20\nx,3", content_type="text/csv"),
        call([[25.5, "Rome"]]),
    ]
    together = handler.answer(calls)
    assert counting.sizes == [4, 1]
    assert together == [handler.answer([one])[0] for one in calls]


def test_texts_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["good film", "bad film", "good", "bad"]
    handler = loaded(tmp_path, make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0]))
    counting = Counting(handler, monkeypatch)
    assert [predictions(reply) for reply in handler.answer([call(["good"]), call(["bad", "film good"])])] == [
        [1],
        [0, 1],
    ]
    assert counting.sizes == [3]


def test_several_outputs_are_taken_apart_again(tmp_path: Path) -> None:
    handler = loaded(tmp_path, RandomForestClassifier(3, random_state=0).fit(X, np.c_[Y, 1 - Y]))
    calls = [call(X[start : start + 2].tolist(), method="predict_proba") for start in range(4)]
    assert handler.answer(calls) == [handler.answer([one])[0] for one in calls]


class Odd(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A class of the owner's, whose answers are fewer than the rows when there are several."""

    def fit(self, rows: Any, targets: Any = None) -> Odd:
        return self

    def transform(self, rows: Any) -> Any:
        return np.asarray(rows)[:1]


def test_results_that_do_not_belong_to_rows_are_asked_for_again_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = loaded(tmp_path, Odd(), {"batch_size": "8"})
    counting = Counting(handler, monkeypatch)
    assert [predictions(reply) for reply in handler.answer([call([[1]]), call([[2]])])] == [[[1]], [[2]]]
    assert counting.sizes == [2, 1, 1]


def centred(rows: Any) -> Any:
    return rows - rows.mean(axis=0)


FOREIGN_MODELS = [
    FunctionTransformer(centred),
    FunctionTransformer(np.cumsum, kw_args={"axis": 0}),
    make_pipeline(StandardScaler(), FunctionTransformer(centred), LinearRegression()),
    make_union(StandardScaler(), FunctionTransformer(centred)),
    FeatureUnion([("u", make_pipeline(FunctionTransformer(centred)))]),
    ColumnTransformer([("c", FunctionTransformer(centred), [0])]),
    TransformedTargetRegressor(LinearRegression(), func=centred, inverse_func=centred, check_inverse=False),
    Odd(),
    make_pipeline(StandardScaler(), Odd()),
]


@pytest.mark.parametrize("model", FOREIGN_MODELS, ids=lambda model: type(model).__name__)
def test_rows_are_not_joined_for_code_that_may_look_at_all_of_them(model: Any, tmp_path: Path) -> None:
    fitted = model.fit(X, X @ [1.0, 2.0, 3.0])
    handler = loaded(tmp_path, fitted)
    calls = [call(row.tolist()) for row in X[:3]]
    assert handler.answer(calls) == [handler.answer([one])[0] for one in calls]
    assert not anatomy.are_rows_independent(anatomy.parts(fitted), is_vouched_for=False)
    # Who sets a batch size says that rows do not depend on each other.
    assert anatomy.are_rows_independent(anatomy.parts(fitted), is_vouched_for=True)


@pytest.mark.parametrize("model", [NMF(2), IterativeImputer(), DummyClassifier(strategy="uniform")])
def test_some_estimators_of_scikit_learn_are_never_given_several_callers_rows(model: Any) -> None:
    assert not anatomy.are_rows_independent(anatomy.parts(make_pipeline(model)), is_vouched_for=True)


@pytest.mark.parametrize(
    "model",
    [
        FunctionTransformer(),
        FunctionTransformer(np.log1p),
        TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1),
        DummyClassifier(),
        GradientBoostingRegressor(n_estimators=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_functions_of_single_values_do_not_keep_rows_apart(model: Any) -> None:
    fitted = model.fit(np.abs(X), Y)
    assert anatomy.are_rows_independent(anatomy.parts(fitted), is_vouched_for=False)


def test_an_empty_batch_has_no_answers(classifier: Handler) -> None:
    assert classifier.answer([]) == []
    assert answered(classifier, []) == []
