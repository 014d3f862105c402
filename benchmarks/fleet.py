"""The models of the demo: a thousand of a kind that one finds where there is a model for every shop or sensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import traffic
from benchmarks.models import write_archive

_ROWS = 200
_FEATURES = 4


class Kind(NamedTuple):
    name: str
    make: Callable[[], Any]


_USUAL = Kind("shop", LinearRegression)
# One of each among so many models.
_AMONG = 50
_OTHERS = (
    Kind("customer", lambda: RandomForestClassifier(n_estimators=20, random_state=0)),
    Kind("city", lambda: make_pipeline(StandardScaler(), LogisticRegression())),
    Kind("sensor", KNeighborsClassifier),
    Kind("machine", lambda: HistGradientBoostingClassifier(max_iter=20, random_state=0)),
)


def train(store: Path, count: int) -> Iterator[traffic.Call]:
    """Trains and packages so many models, and makes for each a call of it that knows the right answer."""
    store.mkdir()
    for number in range(count):
        place = number % _AMONG
        kind = _OTHERS[place] if place < len(_OTHERS) else _USUAL
        name = f"{kind.name}-{number + 1:04}"
        generator = np.random.default_rng(number)
        rows = generator.normal(size=(_ROWS, _FEATURES))
        target = rows @ generator.normal(size=_FEATURES)
        model = kind.make().fit(rows, target if kind is _USUAL else (target > 0).astype(int))
        write_archive(store, name, model, {})
        asked = generator.normal(size=(1, _FEATURES)).round(3)
        body = msgspec.json.encode(asked.tolist())
        yield traffic.call(name, f"/predictions/{name}", body, model.predict(asked).tolist())
