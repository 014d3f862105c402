"""Has a template answer for a model of its own, so that its workers have less to do for the first time.

Running code is written to: the interpreter keeps in it what it has found out about types, libraries fill their caches.
Done once here, it lies in pages that all workers share; done in each worker it takes 0.9 MB of 6.1 from each, and time
from its first answer. And what would be asked again for each answer, with the same result, is not.
"""

from __future__ import annotations

import functools
import io
import logging
import sys
from collections.abc import Callable
from typing import Any

from mmserve_worker.calls import Call

logger = logging.getLogger("mmserve.template")

# The interpreter looks at a function's types after it has run eight times.
_TIMES = 10
_BODY = memoryview(b"[[0.5]]")


def warm_up() -> None:
    """Nothing is fitted, no file is written and no thread is started; what is not imported yet stays so."""
    try:
        _ask_narwhals()
        _spare_rows()
        if {"joblib", "numpy", "sklearn.linear_model"} <= sys.modules.keys():
            _answer()
    except Exception as error:  # another version of a library may want its models otherwise
        # Workers do then themselves what was to be saved.
        logger.warning("the template is not warmed up: %s: %s", type(error).__name__, error)


def _ask_narwhals() -> None:
    """scikit-learn 1.9 asks narwhals whether an array is a data frame, and narwhals then reads the metadata of every
    installed package for plug-ins, once a process: measured as 7 of the 9 ms that a first prediction took."""
    narwhals = sys.modules.get("narwhals.dependencies")
    if narwhals is not None:
        narwhals.is_into_dataframe(object())


def _spare_rows() -> None:
    """scikit-learn 1.9 asks narwhals three times in each prediction whether its rows are a data frame: 45 of the 140 us
    of a small model's. Of arrays and lists the answer is known. Every worker of this template has these functions."""
    asked, numpy = sys.modules.get("narwhals.stable.v2.dependencies"), sys.modules.get("numpy")
    if asked is None or numpy is None:
        return
    for name in ("is_into_dataframe", "is_into_series"):
        ask = getattr(asked, name)
        # A next template has them of this one.
        if not hasattr(ask, "__wrapped__"):
            setattr(asked, name, _answered_for(frozenset({numpy.ndarray, list}), ask))


def _answered_for(kinds: frozenset[type], ask: Callable[..., bool]) -> Callable[[Any], bool]:
    """`ask`, which says False for all that is of one of these kinds itself."""

    @functools.wraps(ask)
    def asked(*native: Any, **named: Any) -> bool:
        return not (native and type(native[0]) in kinds) and ask(*native, **named)

    return asked


def _answer() -> None:
    import joblib
    import numpy as np
    from sklearn.linear_model import LinearRegression

    from mmserve_worker.handlers import rows

    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = np.ones(1), np.float64(0.0), 1
    file = io.BytesIO()
    joblib.dump(model, file)
    for _ in range(_TIMES):
        file.seek(0)
        handler = rows.RowsHandler("warming up", joblib.load(file), {})
        for size in (1, 2):
            handler.answer([Call(_BODY)] * size)
