"""XGBoost's models: boosters, and its estimators for scikit-learn's interface.

A file says whether an estimator has written it. A classifier then predicts classes, as it did before it was saved; a
booster predicts what its objective gives, probabilities for instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmserve_worker.codecs.refusals import bad_request
from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers import results, threads
from mmserve_worker.handlers.features import Features
from mmserve_worker.handlers.served import Method, Served, methods_of

_ESTIMATORS = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}
# Objectives whose predictions are probabilities, of the positive class or of all.
_PROBABILITIES = frozenset({"binary:logistic", "multi:softprob"})
# Before a message stands where in XGBoost's source it is written.
_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")


def read(file: Path, options: Mapping[str, str]) -> Any:
    import xgboost

    # The bytes and not the path: by its name XGBoost takes a `.bst` for UBJSON, which may well be JSON.
    content = bytearray(file.read_bytes())
    booster = xgboost.Booster()
    booster.load_model(content)
    written_by = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    if written_by not in _ESTIMATORS:
        return booster
    estimator = getattr(xgboost, _ESTIMATORS[written_by])()
    estimator.load_model(content)
    return estimator


def served(model: Any, options: Mapping[str, str]) -> Served:
    is_booster = type(model).__name__ == "Booster"
    booster = model if is_booster else model.get_booster()
    threads.limit((model, booster), options)
    methods = _methods_of_booster(booster) if is_booster else methods_of(model)
    names = tuple(booster.feature_names or ())
    categorical = [name for name, kind in zip(names, booster.feature_types or (), strict=False) if kind == "c"]
    kind = type(model).__name__
    return Served(
        kind,
        {name: _refusing(method) for name, method in methods.items()},
        Features(kind, booster.num_features(), names, categorical),
        can_join=True,
    )


def _methods_of_booster(booster: Any) -> dict[str, Method]:
    learner = json.loads(booster.save_config())["learner"]
    is_linear = learner["gradient_booster"]["name"] == "gblinear"

    def predict(rows: Any) -> Any:
        if not is_linear:
            return booster.inplace_predict(rows)
        # Linear boosters do not predict in place.
        from xgboost import DMatrix

        return booster.predict(DMatrix(rows, feature_names=booster.feature_names, nthread=1))

    def predict_proba(rows: Any) -> Array:
        return results.of_all_classes(predict(rows))

    methods: dict[str, Method] = {"predict": predict}
    if learner["objective"]["name"] in _PROBABILITIES:
        methods["predict_proba"] = predict_proba
    return methods


def _refusing(method: Callable[[Any], Any]) -> Method:
    def call(rows: Any) -> Any:
        try:
            return method(rows)
        except ValueError as error:
            # XGBoostError is one as well, with a stack trace in its message.
            message = _PLACE.sub("", str(error).strip()).partition("\n")[0]
            raise bad_request(message) from error

    return call
