"""The functions of djl_python.encode_decode and djl_python.np_util that model code calls by name.

What DJL's own do wrongly is done as meant: an npy body is an array, CSV is numbers where it has no header of texts, a
prediction is written as CSV, and what a caller left out is JSON.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from mmserve_worker import codecs
from mmserve_worker.calls import Buffer
from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers import ndlist
from mmserve_worker.handlers.djl_input import Input, arrays_of
from mmserve_worker.handlers.djl_output import Output

# Columns of text by which DJL knows a header.
_TEXT_COLUMNS = ("question", "context", "inputs")


def decode(inputs: Input, content_type: str | None, key: str | None = None, require_csv_headers: bool = True) -> Any:
    """What a request holds: JSON as it is, CSV without headers as an array, else a dictionary with `inputs`."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type in ("", "*/*", "application/json"):
        return inputs.get_as_json(key) if inputs.get_as_bytes(key) else {"inputs": ""}
    if media_type == "text/csv":
        return decode_csv(inputs, require_csv_headers, key)
    if media_type == "text/plain":
        return {"inputs": [inputs.get_as_string(key)]}
    if media_type.startswith("image/"):
        return {"inputs": inputs.get_as_image(key)}
    if media_type == "tensor/npz":
        return {"inputs": inputs.get_as_npz(key)}
    if media_type in ("tensor/ndlist", "application/x-npy"):
        return {"inputs": inputs.get_as_numpy(key)}
    if media_type == "application/x-www-form-urlencoded":
        return {"inputs": inputs.get_as_string(key)}
    return {"inputs": inputs.get_as_bytes(key)}


def decode_csv(inputs: Input, require_headers: bool = True, key: str | None = None) -> Any:
    text = inputs.get_as_string(key) or ""
    if not require_headers:
        return np.array(codecs.decode(text.encode(), "text/csv").values)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    columns = rows[0].keys() if rows else set()
    if not {name.strip().lower() for name in columns} & {*_TEXT_COLUMNS}:
        raise ValueError(f"the CSV needs a header with one of {', '.join(_TEXT_COLUMNS)}")
    return {"inputs": [row["inputs"] for row in rows] if "inputs" in columns else rows}


def encode(outputs: Output, prediction: Any, content_type: str | None, key: str | None = None) -> None:
    """Adds a prediction in that format to an Output, JSON where none is said."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type in ("", "*/*", "application/json"):
        outputs.add_as_json(prediction, key)
        outputs.add_property("Content-Type", "application/json")
    elif media_type == "text/csv":
        outputs.add(encode_csv(prediction), key)
        outputs.add_property("Content-Type", "text/csv")
    elif media_type == "tensor/npz":
        outputs.add_as_npz(prediction, key)
        outputs.add_property("Content-Type", "tensor/npz")
    elif media_type == "application/x-npy":
        file = io.BytesIO()
        np.save(file, np.asarray(prediction), allow_pickle=False)
        outputs.add(file.getvalue(), key)
        outputs.add_property("Content-Type", "application/x-npy")
    else:
        outputs.add_as_numpy(prediction, key)
        outputs.add_property("Content-Type", "tensor/ndlist")


def encode_csv(content: Any) -> str:
    """Records with a header of their keys, or rows without one."""
    rows = content.tolist() if hasattr(content, "tolist") else list(content)
    text = io.StringIO()
    if rows and isinstance(rows[0], dict):
        records = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        records.writeheader()
        records.writerows(rows)
    else:
        lines = csv.writer(text, lineterminator="\n")
        lines.writerows(row if isinstance(row, list | tuple) else [row] for row in rows)
    return text.getvalue()


def to_nd_list(arrays: Any) -> bytearray:
    return bytearray(ndlist.encode(arrays))


def from_nd_list(encoded: Buffer) -> list[Array]:
    return arrays_of(encoded)
