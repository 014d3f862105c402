"""What every answer is encoded from: one array, or several side by side from a model with several outputs.

The first axis is always the rows of the request. Of several outputs, `predict_proba`'s for instance, a row of
a JSON answer is the list of its outputs; CSV and npy, which are flat, have the outputs' columns one behind
the other.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import numpy as np

from mmserve_worker.codecs.refusals import not_acceptable
from mmserve_worker.codecs.rows import Array, array_of

Answer = Array | list[Array]

# Python's own integers and floats are what tolist() makes of these; a longdouble would stay one.
_PLAIN_KINDS = frozenset("iuf")
_PLAIN_BYTES = 8


def is_plain(answer: Answer) -> TypeGuard[Array]:
    if isinstance(answer, list):
        return False
    dtype = answer.dtype
    return dtype.kind in _PLAIN_KINDS and dtype.itemsize <= _PLAIN_BYTES


def listed(answer: Answer) -> list[Any]:
    """An entry for every row, of lists and Python's own types as far as they go."""
    if isinstance(answer, list):
        return [list(outputs) for outputs in zip(*map(listed, answer), strict=True)]
    kind = answer.dtype.kind
    if kind == "c":
        raise not_acceptable("the answer has complex numbers: ask for application/x-npy")
    if kind == "f" and answer.dtype.itemsize > _PLAIN_BYTES:
        answer = answer.astype(np.float64)
    elif kind in "mM":
        answer = answer.astype(str)
    values: list[Any] = answer.tolist()
    return values


def flat(answer: Answer) -> Array:
    """One array: several outputs' columns one behind the other."""
    if isinstance(answer, list):
        return np.hstack([as_table(output) for output in answer])
    return answer


def as_table(values: Array) -> Array:
    """Two dimensions: the columns that a flat format gives each row."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def without_objects(values: Array) -> Array:
    """An object array as the plain array that its values make, where they are all of one kind."""
    items = values.ravel().tolist()
    kinds = frozenset(type(item.item() if isinstance(item, np.generic) else item) for item in items)
    if kinds == {str}:
        # An empty string alone would make an item size that no reader takes.
        return np.array(items, np.dtype(str) if any(items) else np.dtype("U1")).reshape(values.shape)
    plain = array_of(items, kinds)
    if plain.dtype.hasobject:
        raise not_acceptable("the answer's values are of several types: ask for application/json, not npy")
    return plain.reshape(values.shape)
