"""What a fitted model is made of, and what follows from it: whether rows may be answered together, and
whether the model needs its columns by name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_SCALARS = frozenset({bool, bytes, complex, float, int, str, type(None)})
# Trees answer row by row, whoever has grown them.
_BOOSTING = frozenset({"lightgbm", "xgboost"})
_LIBRARIES = (
    frozenset({"joblib", "numpy", "pandas", "scipy", "sklearn"}) | _BOOSTING | sys.stdlib_module_names | {"builtins"}
)

# Estimators of scikit-learn whose answer for a row depends on what other rows come with it.
_NOT_ROW_BY_ROW = frozenset(
    {
        # Draw at random, as many numbers as there are rows.
        "BernoulliRBM",
        "PatchExtractor",
        # Leaves off imputing where no value of the whole input is known.
        "IterativeImputer",
        # Iterate until all rows together have converged.
        "NMF",
        "MiniBatchNMF",
    }
)


def parts(model: object) -> Iterator[Any]:
    """The model, and all objects and functions that it holds, to any depth."""
    seen: set[int] = set()
    rest: list[Any] = [model]
    while rest:
        part = rest.pop()
        if type(part) in _SCALARS or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            rest.extend(part.values())
        elif isinstance(part, list | tuple | set | frozenset):
            rest.extend(part)
        elif isinstance(part, np.ndarray):
            if part.dtype.hasobject:
                rest.extend(part.ravel().tolist())
        elif isinstance(part, functools.partial):
            rest.extend((part.func, part.args, part.keywords))
        elif isinstance(part, MethodType):
            rest.extend((part.__func__, part.__self__))
        else:
            yield part
            if not isinstance(part, type | FunctionType | ModuleType):
                rest.extend(getattr(part, "__dict__", {}).values())


def is_foreign(part: object) -> bool:
    """Whether its code is neither scikit-learn's, nor of a library that it is built on, nor gradient boosting."""
    code = part if isinstance(part, type | FunctionType | BuiltinFunctionType) else type(part)
    return str(code.__module__ or "builtins").partition(".")[0] not in _LIBRARIES


def are_rows_independent(model_parts: Iterable[Any], is_vouched_for: bool) -> bool:
    """Whether rows of several callers may be answered by one call.

    A function or a class of the model's owner may do anything, subtract the mean of what it gets for
    instance, unless the owner has vouched for it.
    """
    return not any(_looks_at_all_rows(part) or (_may_be_anything(part) and not is_vouched_for) for part in model_parts)


def _looks_at_all_rows(part: Any) -> bool:
    name = type(part).__name__
    # Every gradient boosting holds a DummyClassifier, but one that does not draw its answers.
    draws = name == "DummyClassifier" and part.strategy in ("stratified", "uniform")
    return (draws or name in _NOT_ROW_BY_ROW) and not is_foreign(part)


def _may_be_anything(part: Any) -> bool:
    """A FunctionTransformer passes all rows to its function, unless that is a ufunc, which takes value by value."""
    if type(part).__name__ == "FunctionTransformer":
        return not isinstance(part.func, np.ufunc | None)
    return is_foreign(part)


def selects_by_name(model_parts: Iterable[Any]) -> bool:
    """Whether a ColumnTransformer is told its columns by name, which it takes from data frames only."""
    return any(
        _is_name(columns)
        for part in model_parts
        if type(part).__name__ == "ColumnTransformer"
        for _, _, columns in part.transformers
    )


def _is_name(columns: Any) -> bool:
    if isinstance(columns, slice):
        return isinstance(columns.start or columns.stop, str)
    if isinstance(columns, str) or callable(columns):
        return True
    return not np.isscalar(columns) and any(isinstance(column, str) for column in columns)


def may_look_at_names(model_parts: Iterable[Any]) -> bool:
    """Whether there is code of the owner's that was shown a data frame when it was fitted, and may expect
    one."""
    return any(is_foreign(part) or type(part).__name__ == "FunctionTransformer" for part in model_parts)
