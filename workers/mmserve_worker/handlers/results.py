"""From what a model's method returned to an answer: one entry for each row, whatever kind of container it
came in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmserve_worker.calls import CallError
from mmserve_worker.codecs.answers import Answer
from mmserve_worker.codecs.limits import largest_expansion
from mmserve_worker.codecs.rows import Array, column_of


def answer_of(result: Any, method: str) -> Answer:
    """The result as an array, or as one array for each of a model's outputs."""
    if type(result) is np.ndarray and result.ndim:
        return result
    if isinstance(result, list | tuple):
        if method.startswith("predict_") and all(isinstance(output, np.ndarray) for output in result):
            return [dense(output) for output in result]
        return _array_of_list(list(result))
    return dense(result)


def dense(result: Any) -> Array:
    if hasattr(result, "toarray"):
        # A HashingVectorizer answers a text of a few words with a million numbers, nearly all of them zero.
        if math.prod(result.shape) * result.dtype.itemsize > largest_expansion():
            raise MemoryError(f"a sparse answer of shape {result.shape} is too large to be written densely")
        result = result.toarray()
    elif hasattr(result, "to_numpy"):
        # Data frames, of a model whose set_output asks for them: the answer is the same as without.
        result = result.to_numpy()
    values = np.asarray(result)
    if not values.ndim:
        raise CallError(424, "ModelException", f"the model returned {type(result).__name__}, not a value for each row")
    return values


def _array_of_list(values: list[Any]) -> Array:
    if not any(isinstance(value, list | tuple | np.ndarray | np.generic) for value in values):
        return column_of(values)
    try:
        return np.asarray(values)
    except ValueError:
        ragged = np.empty(len(values), object)
        ragged[:] = values
        return ragged


def has_rows(answer: Answer, count: int) -> bool:
    return all(len(output) == count for output in (answer if isinstance(answer, list) else (answer,)))


def rows_between(answer: Answer, start: int, end: int) -> Answer:
    if isinstance(answer, list):
        return [output[start:end] for output in answer]
    return answer[start:end]


def of_all_classes(probabilities: Array) -> Array:
    """Of two classes gradient boosting gives the second one's probability alone."""
    if probabilities.ndim == 2:
        return probabilities
    return np.column_stack((1 - probabilities, probabilities))
