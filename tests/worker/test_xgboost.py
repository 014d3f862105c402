"""XGBoost's files: each is served as what wrote it, with the library's own predictions."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from mmserve_worker import handlers
from mmserve_worker.calls import Handler, ModelSpec
from mmserve_worker.handlers import model_files
from mmserve_worker.handlers.errors import LoadError
from tests.worker.handled import answered, call, loaded, predictions, refused

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)
ROWS = X[:5].tolist()


def load(directory: Path, **options: str) -> Handler:
    return handlers.load(
        ModelSpec("the-model", str(directory), {f"option.{key}": value for key, value in options.items()})
    )


def booster(objective: str, targets: Any = Y, **parameters: Any) -> Any:
    data = xgboost.DMatrix(X, targets)
    return xgboost.train({"objective": objective, "nthread": 1, **parameters}, data, num_boost_round=4)


@pytest.mark.parametrize("name", ["model.json", "churn.json", "model.ubj", "model.bst", "model.xgb"])
def test_a_classifier_s_file_predicts_classes(tmp_path: Path, name: str) -> None:
    model = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(X, np.digitize(X[:, 1], [-0.5, 0.5]))
    # By its content: a .bst is either.
    saved = tmp_path / ("saved.json" if name.endswith(("json", "bst")) else "saved.ubj")
    model.save_model(saved)
    saved.rename(tmp_path / name)
    handler = load(tmp_path)
    assert answered(handler, ROWS) == model.predict(X[:5]).tolist()
    np.testing.assert_allclose(answered(handler, ROWS, method="predict_proba"), model.predict_proba(X[:5]), rtol=1e-6)


@pytest.mark.parametrize("written", ["json", "ubj", "pickle"])
def test_the_file_of_sagemakers_container_is_read_by_what_is_in_it(tmp_path: Path, written: str) -> None:
    model = booster("binary:logistic")
    content = pickle.dumps(model) if written == "pickle" else bytes(model.save_raw(written))
    (tmp_path / "xgboost-model").write_bytes(content)
    assert answered(load(tmp_path), ROWS) == pytest.approx(model.predict(xgboost.DMatrix(X[:5])).tolist())
    assert len(answered(load(tmp_path, model_format="xgb"), ROWS)) == 5


def test_a_regressor_s_file_stops_at_the_best_iteration(tmp_path: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=50, early_stopping_rounds=2, learning_rate=1.0, n_jobs=1)
    model.fit(X[:60], X[:60, 0], eval_set=[(X[60:], X[60:, 1])], verbose=False)
    model.save_model(tmp_path / "model.json")
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    np.testing.assert_allclose(answered(load(tmp_path), ROWS), model.predict(X[:5]), rtol=1e-6)


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob"])
def test_a_booster_predicts_what_its_objective_gives(tmp_path: Path, objective: str) -> None:
    model = booster(objective, **({"num_class": 2} if objective.startswith("multi") else {}))
    model.save_model(tmp_path / "model.ubj")
    handler = load(tmp_path)
    expected = model.predict(xgboost.DMatrix(X[:5]))
    np.testing.assert_allclose(answered(handler, ROWS), expected, rtol=1e-6)
    probabilities = np.array(answered(handler, ROWS, method="predict_proba"))
    np.testing.assert_allclose(probabilities[:, 1], expected if expected.ndim == 1 else expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("parameters", [{"objective": "reg:squarederror"}, {"objective": "binary:hinge"}])
def test_other_objectives_have_no_probabilities(tmp_path: Path, parameters: dict[str, str]) -> None:
    model = booster(**parameters)
    model.save_model(tmp_path / "model.json")
    handler = load(tmp_path)
    np.testing.assert_allclose(answered(handler, ROWS), model.predict(xgboost.DMatrix(X[:5])), rtol=1e-6)
    assert "this model has predict" in refused(handler, ROWS, method="predict_proba")[2]


def test_a_linear_booster_is_a_model_as_well(tmp_path: Path) -> None:
    model = booster("reg:squarederror", booster="gblinear")
    model.save_model(tmp_path / "model.json")
    np.testing.assert_allclose(answered(load(tmp_path), ROWS), model.predict(xgboost.DMatrix(X[:5])), rtol=1e-6)


def test_missing_values_are_missing(tmp_path: Path) -> None:
    holes = np.where(RNG.random(X.shape) < 0.3, np.nan, X)
    model = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(holes, Y)
    model.save_model(tmp_path / "model.json")
    rows = [[None, 0.5, None], [0.1, None, 0.3]]
    expected = model.predict_proba(np.array(rows, float))
    np.testing.assert_allclose(answered(load(tmp_path), rows, method="predict_proba"), expected, rtol=1e-6)
    answers = answered(load(tmp_path), b",0.5,\n0.1,,0.3\n", content_type="text/csv", method="predict_proba")
    np.testing.assert_allclose(answers, expected, rtol=1e-6)


def test_features_are_known_by_their_names(tmp_path: Path) -> None:
    table = pd.DataFrame(X, columns=["age", "size", "rate"])
    model = xgboost.XGBRegressor(n_estimators=4, n_jobs=1).fit(table, X[:, 1])
    model.save_model(tmp_path / "model.ubj")
    handler = load(tmp_path)
    records = [{"rate": rate, "age": age, "size": size} for age, size, rate in ROWS]
    expected = model.predict(table[:5])
    np.testing.assert_allclose(answered(handler, records), expected, rtol=1e-6)
    np.testing.assert_allclose(answered(handler, ROWS), expected, rtol=1e-6)
    assert refused(handler, [{"age": 1, "size": 2}]) == (400, "BadRequestException", 'missing features: "rate"')


def categorical() -> tuple[pd.DataFrame, Any]:
    table = pd.DataFrame({"size": X[:, 0], "city": pd.Categorical(RNG.choice(["Bonn", "Oslo", "Rome"], 80))})
    table["code"] = pd.Categorical(RNG.choice([3, 7, 11], 80))
    target = X[:, 0] + table["city"].cat.codes * 5 + table["code"].cat.codes * 20
    return table, xgboost.XGBRegressor(n_estimators=8, enable_categorical=True, n_jobs=1).fit(table, target)


def test_categories_are_known_by_their_names(tmp_path: Path) -> None:
    table, model = categorical()
    model.save_model(tmp_path / "model.json")
    handler = load(tmp_path)
    expected = model.predict(table[:5])
    records = table[:5].astype({"city": str, "code": int}).to_dict("records")
    np.testing.assert_allclose(answered(handler, records), expected, rtol=1e-6)
    alone = [predictions(reply)[0] for reply in handler.answer([call([record]) for record in records])]
    np.testing.assert_allclose(alone, expected, rtol=1e-6)
    status, _, message = refused(handler, [{"size": 1.5, "city": "Zagreb", "code": 3}])
    assert (status, message) == (
        400,
        "Found a category not in the training set for the 1th (0-based) column: `Zagreb`",
    )


def test_a_batch_is_one_call_and_only_the_bad_one_fails(tmp_path: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=4, n_jobs=1).fit(X, X[:, 1])
    model.save_model(tmp_path / "model.json")
    handler = load(tmp_path)
    file = io.BytesIO()
    np.save(file, X[:2])
    calls = [call(X[i : i + 1 + i % 2].tolist()) for i in range(8)]
    calls += [call([[1, 2]]), call([["a", 1, 2]]), call(file.getvalue(), content_type="application/x-npy")]
    together = handler.answer(calls)
    assert [reply.status for reply in together] == [200] * 8 + [400, 400, 200]
    assert together == [handler.answer([one])[0] for one in calls]


def test_pickles_of_it_are_served_alike(tmp_path: Path) -> None:
    model = booster("binary:logistic")
    handler = loaded(tmp_path, model)
    assert answered(handler, ROWS) == pytest.approx(model.predict(xgboost.DMatrix(X[:5])).tolist())
    table, model = categorical()
    records = table[:5].astype({"city": str, "code": int}).to_dict("records")
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(model))
    assert answered(load(tmp_path), records) == pytest.approx(model.predict(table[:5]).tolist())


def test_one_thread_is_used_unless_the_owner_says_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(xgboost.XGBClassifier(n_estimators=2, n_jobs=8).fit(X, Y)))
    model = model_files.load(tmp_path / "model.pkl", "the-model", {})
    for options, threads in (({}, "1"), ({"option.threads": "2"}, "2")):
        handlers.libraries.served(model, options)
        assert f'"nthread":"{threads}"' in model.get_booster().save_config()
    with pytest.raises(LoadError, match=r"option\.threads is none: expected a number"):
        load(tmp_path, threads="none")


def test_what_is_no_model_of_it_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"learner": 5}')
    with pytest.raises(LoadError, match=r"model\.json cannot be loaded: "):
        load(tmp_path)
    (tmp_path / "model.json").write_text('{"name": "churn"}')
    with pytest.raises(LookupError, match="no model file"):
        load(tmp_path)


def test_the_handler_that_other_servers_name_for_it_is_this_one(tmp_path: Path) -> None:
    booster("reg:squarederror").save_model(tmp_path / "model.json")
    (tmp_path / "model.joblib").write_bytes(b"nonsense")
    handler = load(tmp_path, entryPoint="djl_python.xgboost_handler", model_format="json")
    assert len(answered(handler, ROWS)) == 5
