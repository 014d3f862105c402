"""From a model's directory to a handler, whatever its file is."""

from __future__ import annotations

import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mmserve_worker import handlers
from mmserve_worker.calls import Handler, ModelSpec
from mmserve_worker.handlers import model_files
from mmserve_worker.handlers.errors import LoadError
from mmserve_worker.handlers.rows import RowsHandler
from tests.worker.handled import answered, loaded

MODEL = make_pipeline(StandardScaler(), LinearRegression()).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])


def load(directory: Path, **options: str) -> Handler:
    return handlers.load(
        ModelSpec("the-model", str(directory), {f"option.{key}": value for key, value in options.items()})
    )


def neighbours() -> Any:
    rows = np.random.default_rng(0).normal(size=(2000, 4))
    return KNeighborsRegressor(1, algorithm="brute").fit(rows, rows[:, 0])


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib"])
def test_pickles_are_models(tmp_path: Path, suffix: str, protocol: int) -> None:
    (tmp_path / f"model.{suffix}").write_bytes(pickle.dumps(MODEL, protocol))
    assert answered(load(tmp_path), [[0.5]]) == pytest.approx([0.5])


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_are_models_compressed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, compress: Any
) -> None:
    monkeypatch.setattr(model_files, "MAP_FROM_BYTES", 1)
    joblib.dump(neighbours(), tmp_path / "model.joblib", compress=compress)
    assert len(answered(load(tmp_path), [[0.5, 1, 2, 3]])) == 1
    assert not caplog.records


def test_large_arrays_are_mapped_and_small_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(neighbours(), tmp_path / "model.joblib")
    model = model_files.load(tmp_path / "model.joblib", "the-model", {})
    assert not isinstance(model._fit_X, np.memmap)
    monkeypatch.setattr(model_files, "MAP_FROM_BYTES", 1)
    mapped = model_files.load(tmp_path / "model.joblib", "the-model", {})
    assert isinstance(mapped._fit_X, np.memmap)
    np.testing.assert_array_equal(mapped.predict(model._fit_X[:5]), model.predict(model._fit_X[:5]))


def test_skops_files_are_models(tmp_path: Path) -> None:
    skops.io.dump(MODEL, tmp_path / "model.skops")
    assert answered(load(tmp_path), [[0.5]]) == pytest.approx([0.5])


def test_types_of_a_skops_file_must_be_trusted_by_name(tmp_path: Path) -> None:
    skops.io.dump(FunctionTransformer(halved), tmp_path / "model.skops")
    trusted = f"{halved.__module__}.halved"
    with pytest.raises(LoadError, match="skops_trusted_types"):
        load(tmp_path)
    assert answered(load(tmp_path, skops_trusted_types=f"other.type, {trusted}"), [[1.0]]) == [[0.5]]


def halved(rows: Any) -> Any:
    return rows / 2


def test_another_version_of_scikit_learn_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = pickle.dumps(MODEL)
    version = sys.modules["sklearn"].__version__.encode()
    assert version in old
    (tmp_path / "model.pkl").write_bytes(old.replace(version, b"1" + version[1:-1] + b"0"))
    caplog.set_level(logging.INFO)
    assert answered(load(tmp_path), [[0.5]]) == pytest.approx([0.5])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("model the-model: InconsistentVersionWarning: Trying to unpickle")


def test_a_pickle_may_refer_to_modules_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "class Model:\n    def predict(self, rows):\n        return [len(rows)]\n"
    (tmp_path / "their_module.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.syspath_prepend(tmp_path)
    import their_module  # type: ignore[import-not-found]

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(their_module.Model()))
    monkeypatch.delitem(sys.modules, "their_module")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert answered(load(tmp_path), [[1]]) == [1]
    del sys.modules["their_module"]


def test_what_is_no_model_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no model file"):
        load(tmp_path)
    with pytest.raises(LoadError, match="dict is no model"):
        loaded(tmp_path, {"a": 1})
    (tmp_path / "model.joblib").write_bytes(b"nonsense")
    with pytest.raises(LoadError, match=r"model\.joblib cannot be loaded: "):
        load(tmp_path)


def test_the_handler_that_other_servers_name_for_it_is_this_one(tmp_path: Path) -> None:
    joblib.dump(MODEL, tmp_path / "model.joblib")
    assert isinstance(load(tmp_path, entryPoint="djl_python.sklearn_handler"), RowsHandler)
