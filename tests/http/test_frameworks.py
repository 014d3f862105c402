"""Models of other libraries through a real server: their own predictions, template and batches included."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import psutil
import pytest
import skops.io
import xgboost
from sklearn.linear_model import LogisticRegression

from tests.models_for_tests import write_model
from tests.observability.scraped import scrape
from tests.servers import Server, mapped_files, wait_until

with warnings.catch_warnings():
    # It uses what newer versions of onnx warn of.
    warnings.simplefilter("ignore")
    from skl2onnx import to_onnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


class Trained(NamedTuple):
    """A model's file, a native library by which a template that has learned it is known, and what it answers."""

    file: str
    library: str
    probabilities: Any


def train(place: Path) -> dict[str, Trained]:
    boosted = xgboost.XGBClassifier(n_estimators=20, n_jobs=1).fit(X, Y)
    boosted.save_model(place / "model.json")
    boosted.save_model(place / "model.ubj")
    light = lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1).fit(X, Y)
    light.booster_.save_model(place / "model.txt")
    linear = LogisticRegression().fit(X, Y)
    skops.io.dump(linear, place / "model.skops")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (place / "model.onnx").write_bytes(to_onnx(linear, X[:1]).SerializeToString())
    return {
        "json": Trained("model.json", "libxgboost", boosted.predict_proba(X)),
        "ubj": Trained("model.ubj", "libxgboost", boosted.predict_proba(X)),
        "lightgbm": Trained("model.txt", "lib_lightgbm", light.predict_proba(X)),
        "onnx": Trained("model.onnx", "onnxruntime", linear.predict_proba(X)),
        "skops": Trained("model.skops", "sklearn", linear.predict_proba(X)),
    }


KINDS = ("json", "ubj", "lightgbm", "onnx", "skops")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trained]:
    return train(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def server(
    serve_module: Callable[..., Server], trained: Mapping[str, Trained], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """Each model twice, so that the second is loaded by a worker whose template has learned from the first."""
    store = tmp_path_factory.mktemp("frameworks")
    for name, model in trained.items():
        for number in ("1", "2"):
            directory = write_model(store / f"{name}-{number}", files={"requirements.md": "", "config.json": "{}"})
            os.link(tmp_path_factory.getbasetemp() / model.file, directory / model.file)
    return serve_module(model_store=store, preload="numpy,joblib")


def probabilities(server: Server, model: str, rows: Any) -> Any:
    return server.predictions(model, rows.tolist(), params={"method": "predict_proba"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_of_a_template_that_has_learned_answers_as_the_first(
    server: Server, trained: Mapping[str, Trained], kind: str
) -> None:
    expected = trained[kind].probabilities[:10]
    np.testing.assert_allclose(probabilities(server, f"{kind}-1", X[:10]), expected, rtol=1e-4)
    wait_until(
        lambda: trained[kind].library in mapped_files(server.template_pid()),
        f"a template that has imported {trained[kind].library}",
    )
    assert server.template_threads() == 1
    np.testing.assert_allclose(probabilities(server, f"{kind}-2", X[:10]), expected, rtol=1e-4)
    (worker,) = server.worker_pids(f"{kind}-2")
    assert psutil.Process(worker).num_threads() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_callers_at_the_same_time_get_their_own_rows(
    server: Server, trained: Mapping[str, Trained], threads: ThreadPoolExecutor, kind: str
) -> None:
    def ask(start: int) -> Any:
        return probabilities(server, f"{kind}-1", X[start : start + 1 + start % 3])

    starts = range(64)
    for start, answer in zip(starts, threads.map(ask, starts), strict=True):
        np.testing.assert_allclose(answer, trained[kind].probabilities[start : start + 1 + start % 3], rtol=1e-4)


def test_batches_are_made_of_what_waits(server: Server, threads: ThreadPoolExecutor) -> None:
    def batches() -> tuple[float, float]:
        told = scrape(server)
        count, total = (told.value(f"mmserve_batch_size_{kind}", model="json-1") for kind in ("count", "sum"))
        assert count is not None
        assert total is not None
        return count, total

    calls, requests = batches()
    list(threads.map(lambda start: probabilities(server, "json-1", X[start : start + 1]), range(64)))
    more_calls, more_requests = batches()
    assert more_requests - requests == 64
    assert more_calls - calls < 64
