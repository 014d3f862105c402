"""From the rows that a caller sent to what the model was fitted on: rows or texts, in order, under their
names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from mmserve_worker import codecs
from mmserve_worker.calls import Buffer
from mmserve_worker.codecs.refusals import bad_request, quoted
from mmserve_worker.codecs.rows import Array, Columns, Numbers, Rows, column_of, joined_matrices
from mmserve_worker.handlers import anatomy
from mmserve_worker.handlers.errors import LoadError

_NAMES_IN_A_MESSAGE = 5


class Features:
    """What a model expects of its input.

    `columns` gives the input as arrays that can be joined with other callers' (one matrix, or an array for
    each column where their types differ), `assembled` makes of them what the model takes.
    """

    def __init__(
        self, model_name: str, count: int | None, names: tuple[str, ...], categorical: Iterable[str] = ()
    ) -> None:
        """Of the features in `categorical` the values are names or numbers of categories."""
        self._model_name = model_name
        self._count = count
        self.names = names
        self._categorical = frozenset(categorical)
        self._pandas: Any = None
        self._index: Any = None
        self._is_framed = bool(self._categorical)
        self._selects_by_name = False
        if self._categorical:
            self._use_frames()

    @classmethod
    def of_estimator(cls, model: object, model_parts: list[Any]) -> Features:
        count = getattr(model, "n_features_in_", None)
        names = tuple(map(str, getattr(model, "feature_names_in_", ())))
        features = cls(type(model).__name__, int(count) if count is not None else None, names)
        if names:
            # A model fitted on a data frame takes an array as well, and a frame costs it another 100 us; so frames
            # are for those that look columns up by name, and for columns of different types.
            features._selects_by_name = anatomy.selects_by_name(model_parts)
            features._is_framed = features._selects_by_name or anatomy.may_look_at_names(model_parts)
            features._use_frames()
        return features

    def _use_frames(self) -> None:
        try:
            import pandas
        except ModuleNotFoundError:
            if self._selects_by_name or self._categorical:
                raise LoadError(
                    f"{self._model_name} looks up columns by their names, which needs pandas: install that beside "
                    "mmserve, or add it to the model's requirements.txt"
                ) from None
            self._is_framed = False
            return
        self._pandas = pandas
        self._index = pandas.Index(self.names)

    def read(self, body: Buffer, content_type: str) -> Columns:
        rows = codecs.decode(body, content_type, self.names)
        numbers = rows.numbers
        if numbers is not None and numbers.width == self._count and not (self._is_framed or self._selects_by_name):
            # Nothing that `columns` does would change it.
            return [numbers]
        return self.columns(rows) if len(rows.values) else [rows.values]

    def columns(self, rows: Rows) -> list[Array]:
        values = rows.values
        if values.dtype.kind == "U":
            values = values.astype(object)
        if rows.names:
            values = self._ordered(values, rows.names)
        elif values.ndim == 1:
            values = values if self._is_texts(values) else values.reshape(1, -1)
        elif values.ndim == 2 and values.shape[1] == 1 and self._is_texts(values):
            values = values.ravel()
        if self._count is not None and values.ndim == 2 and values.shape[1] != self._count:
            expected = f"{self._model_name} is expecting {self._count} features as input."
            raise bad_request(f"X has {values.shape[1]} features, but {expected}")
        if self._pandas is not None and values.ndim == 2 and (values.dtype.hasobject or self._has_null_column(values)):
            return [self._column(column) for column in values.T.tolist()]
        return [values]

    def _has_null_column(self, values: Array) -> bool:
        return self._selects_by_name and values.dtype.kind == "f" and bool(np.isnan(values).all(axis=0).any())

    def _column(self, values: list[Any]) -> Array:
        """A column of a mixed table. Nothing but nulls may stand for texts, which encoders compare with texts and not
        with numbers; what scales numbers takes objects as well."""
        column = column_of(values)
        if self._selects_by_name and column.dtype.kind == "f" and np.isnan(column).all():
            return column.astype(object)
        return column

    def assembled(self, columns: list[Array]) -> Any:
        first = columns[0]
        if self._pandas is None or (first.ndim != 1 and not self._is_framed):
            return first
        if self._categorical:
            columns = columns if first.ndim == 1 else list(first.T)
            named = dict(zip(self.names, columns, strict=True))
            return self._pandas.DataFrame({**named, **{n: self._category(named[n]) for n in self._categorical}})
        if first.ndim == 1:
            return self._pandas.DataFrame(dict(zip(self.names, columns, strict=True)))
        return self._pandas.DataFrame(first, columns=self._index, copy=False)

    def _category(self, values: Array) -> Any:
        """Categories that are integers have become floats where other columns of a request have fractions or nulls."""
        codes, categories = self._pandas.factorize(values)
        if categories.dtype.kind == "f" and (categories == np.floor(categories)).all():
            categories = categories.astype(np.int64)
        return self._pandas.Categorical.from_codes(codes, categories=categories)

    def _is_texts(self, values: Array) -> bool:
        """Models without a number of features take texts, each of them a sample."""
        return self._count is None and values.dtype.hasobject and any(isinstance(v, str) for v in values.flat)

    def _ordered(self, values: Array, names: tuple[str, ...]) -> Array:
        if names == self.names:
            return values
        if not self.names:
            raise bad_request("this model knows no feature names: send rows as arrays, not as records")
        missing = [name for name in self.names if name not in names]
        if missing:
            raise bad_request(f"missing features: {_listed(missing)}")
        unknown = [name for name in names if name not in self.names]
        if unknown or len(names) != len(self.names):
            raise bad_request(f"features that this model does not have, or twice: {_listed(unknown or list(names))}")
        return values[:, [names.index(name) for name in self.names]]


def signature(columns: Columns) -> tuple[object, ...]:
    """What two callers' columns must have in common to be joined.

    Dtypes must be equal and are not converted: a model that keeps values as they are would answer a float
    where an integer was sent. Of a matrix of objects the types in each column count.
    """
    first = columns[0]
    if isinstance(first, Numbers):
        return ((first.width,), first.dtype)
    if len(columns) > 1:
        return tuple((column.shape[1:], column.dtype) for column in cast(list[Array], columns))
    if first.ndim == 2 and first.dtype.hasobject:
        return (first.shape[1:], *(frozenset(map(type, column)) for column in first.T.tolist()))
    return (first.shape[1:], first.dtype)


def joined(inputs: Sequence[Columns]) -> list[Array]:
    """Of callers whose signatures are the same. Raises OverflowError for integers too large to stand beside others."""
    if len(inputs) == 1:
        return [column.array() if isinstance(column, Numbers) else column for column in inputs[0]]
    firsts = [columns[0] for columns in inputs]
    if any([isinstance(first, Numbers) for first in firsts]):
        return [joined_matrices(firsts)]
    return [np.concatenate(columns) for columns in zip(*cast(Sequence[list[Array]], inputs), strict=True)]


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > _NAMES_IN_A_MESSAGE else ""
    return ", ".join(map(quoted, names[:_NAMES_IN_A_MESSAGE])) + more
