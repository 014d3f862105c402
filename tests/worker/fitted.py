"""What tests of scikit-learn models are fitted on, and a model that does as it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

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
