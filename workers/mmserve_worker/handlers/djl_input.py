"""The Input that a model.py written for DJL Serving is given."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mmserve_worker.calls import Buffer
from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers import ndlist
from mmserve_worker.handlers.djl_pair_list import PairList

_BATCHED = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)


class Input:
    """One request, or a batch of them whose keys all begin with `batch_NNN.`"""

    def __init__(self) -> None:
        self.function_name: str | None = None
        self.properties: dict[str, Any] = {}
        self.content = PairList()

    def get_function_name(self) -> str | None:
        return self.function_name

    def get_properties(self) -> dict[str, Any]:
        return self.properties

    def get_property(self, key: str) -> Any:
        wanted = key.lower()
        return next((value for name, value in self.properties.items() if name.lower() == wanted), None)

    def get_content(self) -> PairList:
        return self.content

    def contains_key(self, key: str) -> bool:
        return self.content.get(key) is not None

    def is_empty(self) -> bool:
        return self.content.is_empty()

    def is_batch(self) -> bool:
        return "batch_size" in self.properties

    def get_batch_size(self) -> int:
        return int(self.properties.get("batch_size", 1))

    def get_batches(self) -> list[Input]:
        if not self.is_batch():
            return [self]
        batches = [Input() for _ in range(self.get_batch_size())]
        for batch in batches:
            batch.function_name = self.function_name
        for key, value in self.properties.items():
            if match := _BATCHED.fullmatch(key):
                batches[int(match[1])].properties[match[2]] = value
        for name, value in zip(self.content.keys, self.content.values, strict=True):
            if match := _BATCHED.fullmatch(name or ""):
                batches[int(match[1])].content.add(match[2] or None, value)
        return batches

    def get_as_bytes(self, key: str | None = None) -> Any:
        if self.content.is_empty():
            return None
        if key is None:
            data = self.content.get("data")
            return self.content.value_at(0) if data is None else data
        value = self.content.get(key)
        if value is None:
            raise KeyError(f"there is no {key!r} in the request")
        return value

    def get_as_string(self, key: str | None = None) -> str | None:
        data = self.get_as_bytes(key)
        return None if data is None else str(data, "utf-8")

    def get_as_json(self, key: str | None = None) -> Any:
        data = self.get_as_bytes(key)
        return None if data is None else json.loads(data)

    def get_as_numpy(self, key: str | None = None) -> list[Array]:
        """The arrays of an NDList; of an npz or npy body too, whatever it is called."""
        data = self.get_as_bytes(key)
        return [] if data is None else arrays_of(data)

    def get_as_npz(self, key: str | None = None) -> list[Array]:
        data = self.get_as_bytes(key)
        return [] if data is None else _npz(data)

    def get_as_csv(self, key: str | None = None) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.get_as_string(key) or "", newline="")))

    def get_as_image(self, key: str | None = None) -> Any:
        from PIL import Image  # type: ignore[import-not-found,unused-ignore]

        return Image.open(io.BytesIO(self.get_as_bytes(key)))

    def get_data(self, key: str | None = None) -> Any:
        """What the content type says it is."""
        if self.is_empty():
            return None
        media_type = str(self.get_property("content-type") or "").lower()
        readers: tuple[tuple[str, Callable[[str | None], Any]], ...] = (
            ("tensor/ndlist", self.get_as_numpy),
            ("application/x-npy", self.get_as_numpy),
            ("tensor/npz", self.get_as_npz),
            ("application/json", self.get_as_json),
            ("text/", self.get_as_string),
            ("image/", self.get_as_image),
        )
        read = next((reader for prefix, reader in readers if media_type.startswith(prefix)), self.get_as_bytes)
        return read(key)

    def __str__(self) -> str:
        return f"Input(function_name={self.function_name!r}, content={self.content.keys})"


def arrays_of(data: Buffer) -> list[Array]:
    if data[:2] == b"PK":
        return _npz(data)
    if data[:6] == b"\x93NUMPY":
        return [np.load(io.BytesIO(data), allow_pickle=False)]
    return ndlist.decode(data)


def _npz(data: Buffer) -> list[Array]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return list(arrays.values())
