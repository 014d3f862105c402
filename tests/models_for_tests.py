"""Models that tests serve: small, fitted in milliseconds, and archives of them."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler


def linear(slope: float = 2.0, intercept: float = 1.0) -> Any:
    """predict([[x]]) == [slope * x + intercept]"""
    x = np.linspace(0, 1, 20).reshape(-1, 1)
    model = LinearRegression().fit(x, slope * x[:, 0] + intercept)
    # Exactly, so that tests can compare for equality.
    model.coef_, model.intercept_ = np.array([slope], dtype=float), intercept
    return model


def named() -> Any:
    """predict([{"a": a, "b": b}]) == [a - b]"""
    model = LinearRegression().fit(np.eye(2), [1, -1])
    model.coef_, model.intercept_ = np.array([1.0, -1.0]), 0.0
    model.feature_names_in_ = np.array(["a", "b"], dtype=object)
    return model


def classifier() -> Any:
    """Two features, classes "no" and "yes", with predict_proba."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(100, 2))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x, np.where(x.sum(axis=1) > 0, "yes", "no"))


def forest() -> Any:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(100, 4))
    return RandomForestClassifier(n_estimators=10, random_state=0).fit(x, (x[:, 0] > 0).astype(int))


def identity() -> Any:
    return FunctionTransformer()


def write_model(directory: Path, model: Any = None, files: Mapping[str, str] | None = None) -> Path:
    """A model's directory: a fitted object as model.joblib, text files, or both."""
    directory.mkdir(parents=True, exist_ok=True)
    if model is not None:
        joblib.dump(model, directory / "model.joblib")
    for name, text in (files or {}).items():
        (directory / name).write_text(text)
    return directory


def write_archive(archive: Path, model: Any = None, files: Mapping[str, str] | None = None) -> Path:
    """The same as a .tar.gz."""
    content = write_model(archive.parent / f".{archive.name}.content", model, files)
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(content.iterdir()):
            tar.add(file, file.name)
            file.unlink()
    content.rmdir()
    return archive
