"""LightGBM's files and pickles, with the library's own predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

from mmserve_worker import handlers
from mmserve_worker.calls import Handler, ModelSpec
from mmserve_worker.handlers.errors import LoadError
from tests.worker.handled import answered, call, loaded, predictions, refused

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = (X[:, 0] > 0).astype(int)
ROWS = X[:5].tolist()
QUIET = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}


def load(directory: Path) -> Handler:
    return handlers.load(ModelSpec("the-model", str(directory)))


def booster(objective: str, targets: Any = Y, **parameters: Any) -> Any:
    return lightgbm.train({"objective": objective, **QUIET, **parameters}, lightgbm.Dataset(X, targets), 4)


@pytest.mark.parametrize("name", ["model.txt", "churn.txt"])
def test_a_text_file_predicts_what_its_objective_gives(tmp_path: Path, name: str) -> None:
    model = booster("regression", X[:, 1])
    model.save_model(tmp_path / name)
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "README.txt").write_text("tree of knowledge")
    handler = load(tmp_path)
    assert answered(handler, ROWS) == pytest.approx(model.predict(X[:5]).tolist())
    assert "this model has predict" in refused(handler, ROWS, method="predict_proba")[2]
    assert refused(handler, [[1, 2]])[2] == "X has 2 features, but Booster is expecting 3 features as input."


@pytest.mark.parametrize("objective", ["binary", "multiclass", "multiclassova"])
def test_probabilities_are_those_of_all_classes(tmp_path: Path, objective: str) -> None:
    classes = {} if objective == "binary" else {"num_class": 3}
    model = booster(objective, np.digitize(X[:, 0], [0.0] if objective == "binary" else [-0.5, 0.5]), **classes)
    model.save_model(tmp_path / "model.txt")
    handler = load(tmp_path)
    expected = model.predict(X[:5])
    np.testing.assert_allclose(answered(handler, ROWS), expected)
    probabilities = np.array(answered(handler, ROWS, method="predict_proba"))
    assert probabilities.shape == (5, 2 if objective == "binary" else 3)
    np.testing.assert_allclose(probabilities[:, 1], expected if expected.ndim == 1 else expected[:, 1])


def test_missing_values_are_missing(tmp_path: Path) -> None:
    holes = np.where(RNG.random(X.shape) < 0.3, np.nan, X)
    model = lightgbm.train({"objective": "regression", **QUIET}, lightgbm.Dataset(holes, X[:, 0]), 4)
    model.save_model(tmp_path / "model.txt")
    rows = [[None, 0.5, None], [0.1, None, 0.3]]
    assert answered(load(tmp_path), rows) == pytest.approx(np.array(model.predict(np.array(rows, float))).tolist())


def table() -> pd.DataFrame:
    cities = pd.Categorical(RNG.choice(["Bonn", "Oslo", "Rome"], 120))
    return pd.DataFrame({"size": X[:, 0], "city": cities, "code": pd.Categorical(RNG.choice([3, 7, 11], 120))})


@pytest.mark.parametrize("kind", ["text", "pickle"])
def test_features_and_categories_are_known_by_their_names(tmp_path: Path, kind: str) -> None:
    frame = table()
    target = X[:, 0] + frame["city"].cat.codes * 5 + frame["code"].cat.codes * 20
    model = lightgbm.LGBMRegressor(n_estimators=8, min_child_samples=5, min_data_per_group=5, verbose=-1, n_jobs=1)
    model.fit(frame, target)
    if kind == "text":
        model.booster_.save_model(tmp_path / "model.txt")
    handler = load(tmp_path) if kind == "text" else loaded(tmp_path, model)
    records = frame[:5].astype({"city": str, "code": int}).to_dict("records")
    expected = model.predict(frame[:5])
    assert len(set(expected)) > 1
    np.testing.assert_allclose(answered(handler, records), expected)
    swapped = [dict(reversed(record.items())) for record in records]
    alone = [predictions(reply)[0] for reply in handler.answer([call([record]) for record in swapped])]
    np.testing.assert_allclose(alone, expected)


def test_a_pickled_classifier_predicts_its_labels_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=4).fit(X, np.where(Y, "yes", "no"))
    handler = loaded(tmp_path, model)
    asked: list[Any] = []

    def predict(*_: Any, **said: Any) -> Any:
        asked.append(said["num_threads"])
        return np.array([0.2])

    monkeypatch.setattr(lightgbm.Booster, "predict", predict)
    assert answered(handler, [[-1.0, 0.0, 0.0]]) == ["no"]
    assert asked == [1]


def test_a_batch_is_answered_as_each_caller_alone(tmp_path: Path) -> None:
    booster("binary").save_model(tmp_path / "model.txt")
    handler = load(tmp_path)
    calls = [call(X[i : i + 1 + i % 3].tolist(), method="predict_proba" if i % 2 else "") for i in range(9)]
    calls += [call([["a", 1, 2]]), call([[1]])]
    together = handler.answer(calls)
    assert [reply.status for reply in together] == [200] * 9 + [400, 400]
    assert together == [handler.answer([one])[0] for one in calls]


def test_what_is_no_model_of_it_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("tree\nnonsense")
    with pytest.raises(LoadError, match=r"model\.txt cannot be loaded: "):
        load(tmp_path)
