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

INTEGERS = frozenset({int})
_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
_BOOLEANS = frozenset({bool})
NUMBERS = frozenset({int, float, type(None)})


# Not frozen, which would triple the time to make one.
@dataclass(slots=True)
class Numbers:
    """A matrix of numbers that is no array yet: one array of many callers' takes the time of one.

    `values` are those of all rows, one row behind the other.
    """

    values: list[Any]
    width: int
    # And not floats or nulls.
    are_integers: bool

    def __len__(self) -> int:
        return len(self.values) // self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `array` has unless an integer is too large for it."""
        return _INT64 if self.are_integers else _FLOAT64

    def array(self) -> Array:
        return _array_of_numbers(self.values, self.are_integers).reshape(-1, self.width)


def joined_matrices(matrices: Sequence[Array | Numbers]) -> Array:
    """The rows of all, who have one width and dtype. Raises OverflowError where an integer is too large for that."""
    numbers = [matrix for matrix in matrices if isinstance(matrix, Numbers)]
    first = numbers[0]
    if len(numbers) == len(matrices):
        return np.array([value for each in numbers for value in each.values], first.dtype).reshape(-1, first.width)
    arrays = [np.array(m.values, m.dtype).reshape(-1, m.width) if isinstance(m, Numbers) else m for m in matrices]
    return np.concatenate(arrays)


# Of one caller: arrays that can be joined with another's, or the one matrix that is not an array yet.
Columns = list[Array] | list[Numbers]


class Rows:
    """A decoded body. `names` are the columns' names where the body carried them."""

    __slots__ = ("_is_flat", "_values", "names", "numbers")

    def __init__(self, values: Array | Numbers, names: tuple[str, ...] = (), *, is_flat: bool = False) -> None:
        """`is_flat` says of numbers that they came as one row that is in no array of rows."""
        self.names = names
        self._is_flat = is_flat
        # What the values are made of, if it is numbers.
        self.numbers = values if isinstance(values, Numbers) else None
        self._values = None if isinstance(values, Numbers) else values

    @property
    def values(self) -> Array:
        if self._values is None:
            assert self.numbers is not None
            array = self.numbers.array()
            self._values = array.ravel() if self._is_flat else array
        return self._values


def array_of(values: Sequence[Any], kinds: frozenset[type]) -> Array:
    """A 1-D array of scalars, `kinds` being their types."""
    if kinds <= NUMBERS:
        return _array_of_numbers(values, kinds == INTEGERS)
    if kinds == _BOOLEANS:
        return np.array(values, np.bool_)
    mixture = np.empty(len(values), object)
    mixture[:] = [np.nan if value is None else value for value in values]
    return mixture


def column_of(values: Sequence[Any]) -> Array:
    """A 1-D array of one column's scalars."""
    return array_of(values, frozenset(map(type, values)))


def _array_of_numbers(values: Sequence[Any], are_integers: bool) -> Array:
    if are_integers:
        return _integers(values)
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([_as_float(value) for value in values], np.float64)


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
