"""What every request is decoded to, and the one rule that gives decoded values their dtype.

    values                          dtype
    only integers                   int64; uint64 where they need it; float64 beyond that
    numbers, nulls among them       float64, null is NaN
    only booleans                   bool
    anything else, or a mixture     object: every value keeps its type, null is NaN

NumPy's own inference is not used: it turns [1, "a"] into two strings, [true, 2.5] into two numbers, and
[2**63, 1] into two floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_INTEGERS = frozenset({int})
_BOOLEANS = frozenset({bool})
_NUMBERS = frozenset({int, float, type(None)})


@dataclass(slots=True)
class Rows:
    """A decoded body. `names` are the columns' names where the body carried them."""

    values: Array
    names: tuple[str, ...] = ()


def array_of(values: Sequence[Any], kinds: frozenset[type]) -> Array:
    """A 1-D array of scalars, `kinds` being their types."""
    if kinds == _INTEGERS:
        return _integers(values)
    if kinds <= _NUMBERS:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            return np.array([_as_float(value) for value in values], np.float64)
    if kinds == _BOOLEANS:
        return np.array(values, np.bool_)
    mixture = np.empty(len(values), object)
    mixture[:] = [np.nan if value is None else value for value in values]
    return mixture


def column_of(values: Sequence[Any]) -> Array:
    """A 1-D array of one column's scalars."""
    return array_of(values, frozenset(map(type, values)))


def _integers(values: Sequence[int]) -> Array:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        if min(values) >= 0 and max(values) <= np.iinfo(np.uint64).max:
            return np.array(values, np.uint64)
        return np.array([_as_float(value) for value in values], np.float64)


def _as_float(value: float | None) -> float:
    if value is None:
        return np.nan
    try:
        return float(value)
    except OverflowError:
        # As the JSON literal 1e400 is read.
        return np.inf if value > 0 else -np.inf
