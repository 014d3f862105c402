"""Models to measure with, and stores of their archives."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import FunctionTransformer

from benchmarks import traffic
from mmserve.models.pack import pack

# What the linear ones are asked.
BODY = b"[[0.5]]"
# A worker for each and no more, that stays however long a round takes.
_ONE_WORKER = {"maxWorkers": "1", "max_idle_time": "3600"}


def linear(slope: float) -> Any:
    """What most models of a store are like: small, and answered in about 100 microseconds."""
    x = np.arange(10.0).reshape(-1, 1)
    return LinearRegression().fit(x, slope * x[:, 0] + 1.0)


def identity() -> Any:
    """Gives back what it gets, at no cost of its own."""
    return FunctionTransformer()


def write_archive(store: Path, name: str, model: Any, properties: Mapping[str, str] = _ONE_WORKER) -> Path:
    archive = store / f"{name}.tar.gz"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "model.joblib")
        joblib.dump(model, file)
        pack([file], archive, properties)
    return archive


def make_store(
    directory: Path, count: int, distinct: int | None = None, properties: Mapping[str, str] = _ONE_WORKER
) -> list[str]:
    """Fills a new store with `count` linear models and returns their names. Where not all are distinct, the others
    are copies.
    """
    directory.mkdir()
    names = [f"shop-{number:05}" for number in range(1, count + 1)]
    originals = [
        write_archive(directory, name, linear(number), properties) for number, name in enumerate(names[:distinct])
    ]
    for number, name in enumerate(names[len(originals) :]):
        shutil.copyfile(originals[number % len(originals)], directory / f"{name}.tar.gz")
    return names


def calls(names: Sequence[str]) -> list[traffic.Call]:
    """A call of each model of a store whose models are all distinct, with its right answer."""
    return [traffic.call(name, f"/predictions/{name}", BODY, [slope * 0.5 + 1.0]) for slope, name in enumerate(names)]
