"""CSV: requests to rows, answers to text.

A column all of whose fields are numbers or empty is numeric, an empty field being NaN; one of true and false
only is boolean; any other is text. If all columns are numeric the rows are one numeric array, as they would
be from JSON.

The first line is a header if it holds one of the model's feature names, in whatever place or case, or if none of
its fields is a number while at least one column below it is numeric. For a model with feature names the header
says which column is which; for any other it is left out.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mmserve_worker.codecs.answers import Answer, as_table, flat, listed
from mmserve_worker.codecs.refusals import bad_request, not_acceptable
from mmserve_worker.codecs.rows import Rows, array_of

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBERS = frozenset({int, float})


def decode(text: str, names: tuple[str, ...] = ()) -> Rows:
    lines = _lines(text)
    if not lines:
        raise bad_request("the body is empty")
    first = tuple(field.strip() for field in lines[0])
    has_header = _is_header(first, lines[1:], names)
    if has_header:
        lines = lines[1:]
    columns = [_column(fields) for fields in zip(*lines, strict=True)]
    values = list(itertools.chain.from_iterable(zip(*columns, strict=True)))
    array = array_of(values, _kinds(values)).reshape(len(lines), len(first))
    return Rows(array, first if has_header and names else ())


def _is_header(first: tuple[str, ...], below: list[list[str]], names: tuple[str, ...]) -> bool:
    if not {name.lower() for name in names}.isdisjoint(field.lower() for field in first if not _is_number(field)):
        # Even with a name too many or misspelt: taken for a row it would be answered, and the rows shifted by one.
        return True
    if not any(first) or any(map(_is_number, first)):
        return False
    return any(_is_numeric(_column(fields)) for fields in zip(*below, strict=True))


def _lines(text: str) -> list[list[str]]:
    """The fields of every line that is not blank, the same number in each."""
    try:
        lines = [fields for fields in csv.reader(io.StringIO(text, newline=""), strict=True) if fields]
    except csv.Error as error:
        raise bad_request(f"not CSV: {error}") from None
    for number, fields in enumerate(lines, 1):
        if len(fields) != len(lines[0]):
            raise bad_request(f"the rows are ragged: row {number} has {len(fields)} fields, the first {len(lines[0])}")
    return lines


def _column(fields: Sequence[str]) -> list[Any]:
    """Integers, numbers, booleans or texts: the first of them that all the fields are."""
    if not any("_" in field for field in fields):
        # float() and int() would read "1_000", which is a number in Python's source only.
        try:
            return list(map(int, fields))
        except ValueError:
            pass
        try:
            return [float(field) if field.strip() else np.nan for field in fields]
        except ValueError:
            pass
    booleans = [_BOOLEANS.get(field) for field in fields]
    if None not in booleans:
        return booleans
    return [field or np.nan for field in fields]


def _is_number(field: str) -> bool:
    return field != "" and _kinds(_column([field])) <= _NUMBERS


def _is_numeric(column: Sequence[Any]) -> bool:
    """Whether a column has numbers; one of empty fields alone has none."""
    return _kinds(column) <= _NUMBERS and not all(map(math.isnan, column))


def _kinds(values: Sequence[Any]) -> frozenset[type]:
    return frozenset(map(type, values))


def encode(answer: Answer) -> bytes:
    """One row a line, without a header. Numbers are written as JSON would, NaN and infinity as `nan` and
    `inf`."""
    table = as_table(flat(answer))
    if table.dtype.hasobject and any(isinstance(value, dict) for value in table.flat):
        raise not_acceptable("the answer has dictionaries: ask for application/json")
    rows = listed(table)
    text = _written(rows, csv.QUOTE_MINIMAL)
    if "\r" in text:
        # The writer takes it for an ordinary character where lines end in a line feed; most readers do not.
        text = _written(rows, csv.QUOTE_ALL)
    return text.encode("utf-8", "backslashreplace")


def _written(rows: Sequence[Sequence[Any]], quoting: Literal[0, 1]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()
