"""JSON and JSON Lines: requests to rows, answers to text.

A request is an array of rows, one row, an array of records (objects, one a row), or an object that carries
one of these under "instances" or "inputs"; whatever else that object carries is ignored. In JSON Lines every
line is a row: an array, a record, or, for models that take texts, a string.

JSON has no NaN: null is NaN on the way in and the way out. `NaN` and `Infinity`, which many libraries write,
are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmserve_worker.codecs.answers import Answer, is_plain, listed
from mmserve_worker.codecs.refusals import bad_request, quoted
from mmserve_worker.codecs.rows import INTEGERS, NUMBERS, Numbers, Rows, array_of

_WHITESPACE = " \t\r\n"
_EXPECTED = 'expected an array of rows, or an object with "instances" or "inputs"'
_LIST = frozenset({list})
_RECORD = frozenset({dict})
_decoder: Any = json.JSONDecoder()
# raw_decode leaves out the two regular expressions that json.loads spends on whitespace: 0.6 us of its 1.3. The scanner
# behind it, which says less of what is wrong, takes half of the rest.
_parse = _decoder.raw_decode
_scan = _decoder.scan_once


def decode(text: str, _names: tuple[str, ...] = ()) -> Rows:
    try:
        value, end = _scan(text, 0)
    except (StopIteration, ValueError, RecursionError):
        end = -1
    if end != len(text):
        value = _value(text)
    return rows_of(value if type(value) is list else _enveloped(value))


def decode_lines(text: str, _names: tuple[str, ...] = ()) -> Rows:
    rows = [_value(line) for line in text.split("\n") if line.strip(_WHITESPACE)]
    if not rows:
        raise bad_request("the body is empty")
    kinds = frozenset(map(type, rows))
    if kinds == {str}:
        # A row each, where a JSON array of strings may be one row.
        return Rows(array_of(rows, kinds).reshape(-1, 1))
    if not kinds <= {list, dict}:
        raise bad_request("every line must be an array, a record, or, for texts, a string")
    return rows_of(rows)


def _value(text: str) -> Any:
    text = text.strip(_WHITESPACE)
    if not text:
        raise bad_request("the body is empty")
    try:
        value, end = _parse(text)
    except RecursionError:
        raise bad_request("the JSON is nested too deeply") from None
    except ValueError as error:
        raise bad_request(f"not JSON: {error}") from None
    if end != len(text):
        raise bad_request(f"not JSON: something follows the value at character {end}")
    return value


def _enveloped(value: Any) -> list[Any]:
    if isinstance(value, dict):
        keys = [key for key in ("instances", "inputs") if key in value]
        if len(keys) != 1:
            raise bad_request(_EXPECTED if not keys else 'expected "instances" or "inputs", not both')
        value = value[keys[0]]
    if not isinstance(value, list):
        raise bad_request(_EXPECTED)
    return value


def rows_of(rows: list[Any]) -> Rows:
    """Rows of lists, to any depth, flattened level by level: ragged ones are found on the way."""
    if len(rows) == 1 and type(row := rows[0]) is list and row and (kinds := frozenset(map(type, row))) <= NUMBERS:
        # What most callers send: there is nothing to compare.
        return Rows(Numbers(row, len(row), kinds == INTEGERS))
    shape = [len(rows)]
    while rows and type(rows[0]) is list:
        if set(map(type, rows)) != _LIST:
            raise bad_request("the rows are ragged: arrays stand beside other values")
        widths = set(map(len, rows))
        if len(widths) != 1:
            raise bad_request(f"the rows are ragged: their lengths are {_some(widths)}")
        shape.extend(widths)
        rows = list(chain.from_iterable(rows))
    kinds = frozenset(map(type, rows))
    if len(shape) <= 2 and kinds and kinds <= NUMBERS:
        return Rows(Numbers(rows, shape[-1], kinds == INTEGERS), is_flat=len(shape) == 1)
    if kinds == _RECORD and len(shape) == 1:
        return _records(rows)
    if not kinds.isdisjoint((list, dict)):
        raise bad_request("the rows are ragged: arrays or records stand beside other values")
    values = array_of(rows, kinds)
    if len(shape) == 1:
        return Rows(values)
    try:
        return Rows(values.reshape(shape))
    except ValueError:
        raise bad_request(f"arrays nested {len(shape)} deep are too deep") from None


def _records(records: list[dict[str, Any]]) -> Rows:
    names = tuple(records[0])
    values: list[Any] = []
    for number, record in enumerate(records, 1):
        if record.keys() != records[0].keys():
            differing = ", ".join(quoted(name) for name in sorted(record.keys() ^ records[0].keys())[:5])
            raise bad_request(f"record {number} and the first one differ in {differing}")
        values.extend(map(record.__getitem__, names))
    kinds = frozenset(map(type, values))
    if not kinds.isdisjoint((list, dict)):
        raise bad_request("the values of a record must be numbers, strings, booleans or null")
    return Rows(array_of(values, kinds).reshape(len(records), len(names)), names)


def _some(widths: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(widths)[:5]))


def encode(answer: Answer) -> bytes:
    return f'{{"predictions": {_array_text(answer)}}}'.encode()


def encode_each(answer: Answer, sizes: Sequence[int]) -> list[bytes] | None:
    """`encode` of so many rows each, at least one, one behind the other; None where that has no short cut."""
    if not is_plain(answer):
        return None
    values = answer.tolist()
    if answer.ndim == 1 and len(values) == len(sizes):
        # One for each: none of them is empty.
        return [b'{"predictions": [%b]}' % text for text in _json_of_plain(values)[1:-1].encode().split(b", ")]
    texts = []
    start = 0
    for size in sizes:
        texts.append(f'{{"predictions": {_json_of_plain(values[start : start + size])}}}'.encode())
        start += size
    return texts


def encode_lines(answer: Answer) -> bytes:
    if is_plain(answer):
        return "".join(f"{_json_of_plain(row)}\n" for row in answer.tolist()).encode()
    return "".join(f"{dumps(row)}\n" for row in listed(answer)).encode()


def _array_text(answer: Answer) -> str:
    if is_plain(answer):
        return _json_of_plain(answer.tolist())
    return dumps(listed(answer))


def _json_of_plain(numbers: Any) -> str:
    # Lists of Python's integers and floats look the same in JSON but for NaN and infinity, and repr takes a
    # fifth of the time of json.dumps (0.4 us against 2 for one number).
    text = repr(numbers)
    if "n" in text:
        text = text.replace("-inf", "null").replace("inf", "null").replace("nan", "null")
    return text


def dumps(value: Any, of_other: Callable[[Any], Any] | None = None) -> str:
    """Any value, NaN and infinity being null. `of_other` is asked for what JSON has no form for."""
    of_other = of_other or _json_of_other
    try:
        return json.dumps(value, allow_nan=False, default=of_other)
    except ValueError:
        return json.dumps(_without_nan(value), default=of_other)


def _without_nan(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _json_of_other(value: Any) -> Any:
    """What else an object array may hold: NumPy's scalars, bytes, dates, pandas' NA."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, np.generic | np.ndarray):
        plain: Any = value.tolist()
        return _without_nan(plain) if not isinstance(plain, np.generic) else str(plain)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
