"""From what a caller sent to what an ONNX model's inputs are: their names, dtypes and shapes.

inputs                                 a caller sends
one, [rows, features]                  rows, as to any model
one, [rows] or [rows, 1], of strings   texts as well, a row each
one of more dimensions                 arrays of them, or one alone as a row
several                                records or a CSV header with their names, rows with all of their columns
                                       side by side, or an npz file with an array for each
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmserve_worker import codecs
from mmserve_worker.calls import Buffer
from mmserve_worker.codecs import media_types, npz
from mmserve_worker.codecs.refusals import bad_request, quoted
from mmserve_worker.codecs.rows import Array, Rows
from mmserve_worker.handlers.errors import LoadError

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_NPZ = "application/x-npz"


class OnnxInputs:
    def __init__(self, declared: Sequence[Any]) -> None:
        self._inputs = [_Input(item.name, item.type, item.shape) for item in declared]
        self._by_name = {item.name: item for item in self._inputs}
        self._names = tuple(self._by_name) if len(self._inputs) > 1 else ()
        if not self._inputs:
            raise LoadError("the ONNX model has no input")
        sizes = {item.shape[0] for item in self._inputs if isinstance(item.shape[0], int)}
        # Rows that the graph takes at once, or 0 where it takes any number.
        self.largest_batch = max(sizes, default=0)

    def read(self, body: Buffer, content_type: str) -> list[Array]:
        if self._names and media_types.split(content_type)[0] == _NPZ:
            return self._named(npz.decode_all(body, self._names))
        rows = codecs.decode(body, content_type, self._names)
        if not len(rows.values):
            return [rows.values]
        if not self._names:
            return self._named({self._inputs[0].name: self._inputs[0].shaped(_without_names(rows))})
        return self._named(self._taken_apart(rows))

    def assembled(self, columns: list[Array]) -> dict[str, Array]:
        return dict(zip(self._by_name, columns, strict=True))

    def _named(self, arrays: dict[str, Array]) -> list[Array]:
        columns = [item.converted(arrays[item.name]) for item in self._inputs]
        if len({len(column) for column in columns}) != 1:
            lengths = ", ".join(f"{item.name} has {len(c)}" for item, c in zip(self._inputs, columns, strict=True))
            raise bad_request(f"the inputs have different numbers of rows: {lengths}")
        return columns

    def _taken_apart(self, rows: Rows) -> dict[str, Array]:
        values = rows.values if rows.values.ndim == 2 else rows.values.reshape(1, -1)
        widths = {name: 1 for name in rows.names} or {item.name: item.width for item in self._inputs}
        if widths.keys() != self._by_name.keys():
            raise bad_request(f"expected the inputs {', '.join(map(quoted, self._names))}, each of them once")
        if sum(widths.values()) != values.shape[1] or 0 in widths.values():
            wanted = ", ".join(f"{name} [{width or 'any'}]" for name, width in widths.items())
            raise bad_request(f"rows of {values.shape[1]} values were sent: the inputs are {wanted}")
        ends = np.cumsum(list(widths.values()))[:-1].tolist()
        parts = np.split(values, ends, axis=1)
        return {name: self._by_name[name].shaped(part) for name, part in zip(widths, parts, strict=True)}


def _without_names(rows: Rows) -> Array:
    if rows.names:
        raise bad_request("this model knows no feature names: send rows as arrays, not as records")
    return rows.values


class _Input:
    def __init__(self, name: str, type_name: str, shape: Sequence[int | str | None]) -> None:
        if type_name not in _DTYPES or not shape:
            raise LoadError(
                f"the input {name} of the ONNX model is a {type_name or 'value'} that rows cannot be made to"
            )
        self.name = name
        self.shape = shape
        self._dtype = _DTYPES[type_name]
        # Values that it takes of each row; 0 where any number is taken, or where they are no plain list.
        width = shape[1] if len(shape) == 2 else 1 if len(shape) == 1 else 0
        self.width = width if isinstance(width, int) else 0

    def shaped(self, values: Array) -> Array:
        """A single row gets the rows' axis, and what is a column is made one."""
        rank = len(self.shape)
        is_text = self._dtype is np.object_
        if rank == 1 and values.ndim == 2 and values.shape[1] == 1:
            return values[:, 0]
        if rank == 2 and values.ndim == 1 and is_text and self.width == 1:
            return values.reshape(-1, 1)
        return values[np.newaxis] if values.ndim == rank - 1 else values

    def converted(self, values: Array) -> Array:
        if values.ndim != len(self.shape):
            raise bad_request(f"{quoted(self.name)} takes {len(self.shape)} dimensions: {values.ndim} were sent")
        if self._dtype is np.object_:
            return self._texts(values)
        if values.dtype == self._dtype:
            return values
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                converted = values.astype(self._dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise bad_request(f"{quoted(self.name)}: {error}") from None
        if converted.dtype.kind in "iub" and not np.array_equal(converted, values):
            raise bad_request(f"{quoted(self.name)} takes {np.dtype(self._dtype).name}, and other values were sent")
        return converted

    def _texts(self, values: Array) -> Array:
        """Numbers are texts as well, a code of digits in a CSV for instance; null is none."""
        items = values.ravel().tolist()
        if not all(isinstance(item, str | int) for item in items):
            raise bad_request(f"{quoted(self.name)} takes strings")
        texts = np.empty(len(items), object)
        texts[:] = [str(item) for item in items]
        return texts.reshape(values.shape)
