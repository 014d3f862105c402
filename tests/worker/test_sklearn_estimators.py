"""Every estimator of scikit-learn that can be fitted in a moment: rows answered together are as if answered alone."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import all_estimators

from mmserve_worker.handlers import anatomy
from mmserve_worker.handlers.rows import RowsHandler
from mmserve_worker.handlers.served import METHODS
from tests.worker.handled import call, predictions

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(30, 4)))
CLASSES = (X[:, 0] > np.median(X[:, 0])).astype(int)
NUMBERS = X @ [1.0, 2.0, 3.0, 4.0]
ROWS = 4
TARGETS: tuple[Any, ...] = (CLASSES, NUMBERS, np.c_[NUMBERS, NUMBERS], np.c_[CLASSES, CLASSES], None)

# Fitting them takes longer than all others together.
SLOW = {"DictionaryLearning", "TSNE", "AffinityPropagation", "TunedThresholdClassifierCV", "SelfTrainingClassifier"}
# They take no rows of numbers (texts, dictionaries, targets, kernels), or need arguments of their own.
OTHER = {
    "CountVectorizer", "DictVectorizer", "FeatureHasher", "FrozenEstimator", "HashingVectorizer", "IsotonicRegression",
    "KernelCenterer", "LabelBinarizer", "LabelEncoder", "PatchExtractor", "SparseCoder", "TfidfVectorizer",
}  # fmt: skip
ARGUMENTS: dict[str, Any] = {
    "base_estimator": LogisticRegression(),
    "estimators": [("one", Ridge())],
    "min_samples": 5,
    "n_estimators": 3,
    "novelty": True,
    "param_distributions": {},
    "param_grid": {},
    "random_state": 0,
    "steps": [("one", Ridge())],
    "transformer_list": [("one", "passthrough")],
    "transformers": [("one", "passthrough", [0, 1])],
}


def made(estimator: Any) -> Any:
    names = inspect.signature(estimator.__init__).parameters
    arguments = {name: value for name, value in ARGUMENTS.items() if name in names}
    if "estimator" in names:
        takes_numbers = "Regressor" in estimator.__name__ or "Imputer" in estimator.__name__
        arguments["estimator"] = Ridge() if takes_numbers else LogisticRegression()
    if "RandomProjection" in estimator.__name__:
        arguments["n_components"] = 2
    if "estimators" in names and "Classifier" in estimator.__name__:
        arguments["estimators"] = [("one", LogisticRegression())]
    return estimator(**arguments)


def fitted(estimator: Any) -> Any:
    refusals = []
    for target in TARGETS:
        try:
            return made(estimator).fit(X) if target is None else made(estimator).fit(X, target)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            refusals.append(error)
    raise AssertionError(f"{estimator.__name__} cannot be fitted: {refusals}")


ESTIMATORS = [pytest.param(made, id=name) for name, made in all_estimators() if name not in SLOW | OTHER]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_answered_together_are_as_if_answered_alone(estimator: Any) -> None:
    model = fitted(estimator)
    if not any(hasattr(model, method) for method in METHODS):
        return
    with warnings.catch_warnings():
        handler = RowsHandler("the-model", model, {})
        is_deterministic = anatomy.are_rows_independent(anatomy.parts(model), is_vouched_for=False)
        for method in handler._methods:
            calls = [call([row.tolist()], method=method) for row in X[:ROWS]]
            together = [predictions(reply) for reply in handler.answer(calls)]
            assert [len(answer) for answer in together] == [1] * ROWS
            if not is_deterministic:
                continue
            alone = [predictions(reply) for one in calls for reply in handler.answer([one])]
            for answer, expected in zip(together, alone, strict=True):
                np.testing.assert_allclose(
                    np.array(answer, float), np.array(expected, float), rtol=1e-9, atol=1e-9, err_msg=method
                )
