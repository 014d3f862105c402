"""The PairList that holds what a DJL request or answer carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Pair = tuple[str | None, Any]


class PairList:
    """Keys and values in order; a key may be None, and may be there more than once."""

    def __init__(
        self,
        keys: Iterable[str | None] = (),
        values: Iterable[Any] = (),
        pair_list: Iterable[Pair] = (),
        pair_map: Mapping[str, Any] | None = None,
    ) -> None:
        self.keys: list[str | None] = []
        self.values: list[Any] = []
        for key, value in (*zip(keys, values, strict=True), *pair_list, *(pair_map or {}).items()):
            self.add(key, value)

    def add(
        self, key: str | None = None, value: Any = None, index: int | None = None, pair: Pair | None = None
    ) -> None:
        key, value = pair or (key, value)
        if value is None:
            return
        position = len(self.keys) if index is None else index
        self.keys.insert(position, key)
        self.values.insert(position, value)

    def add_all(self, other: PairList) -> None:
        self.keys.extend(other.keys)
        self.values.extend(other.values)

    def size(self) -> int:
        return len(self.keys)

    def is_empty(self) -> bool:
        return not self.keys

    def get(self, key: str | None) -> Any:
        return self.values[self.keys.index(key)] if key in self.keys else None

    def key_at(self, index: int) -> str | None:
        return self.keys[index]

    def value_at(self, index: int) -> Any:
        return self.values[index]

    def get_keys(self) -> list[str | None]:
        return self.keys

    def get_values(self) -> list[Any]:
        return self.values
