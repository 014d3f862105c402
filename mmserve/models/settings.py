"""How a model wants to be served, as far as somebody said so: in serving.properties or when registering it.

Every field may be left unsaid; what then holds is decided where settings are used. Nothing here reads a file.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

# More workers than this for one model are a typing error too: they are started as soon as they are asked for.
MAX_WORKERS = 1_000
# More calls than this in one batch is a typing error, not a wish.
MAX_BATCH_SIZE = 10_000
# A model that is to have more of the CPU than a thousand others together had better have a host of its own.
MAX_WEIGHT = 1_000
# One pebibyte: no host has it, and in bytes it is still an exact number.
MAX_MEMORY_MB = 1 << 30
# Seconds in a day. Whoever waits longer for one answer does not wait for an answer.
MAX_TIMEOUT = 86_400

# Where a setting is not called as the field is. The first key that is there counts.
KEYS_OF_FILES = {
    "min_workers": ("cpu.minWorkers", "minWorkers"),
    "max_workers": ("cpu.maxWorkers", "maxWorkers"),
    "batch_size": ("batch_size", "max_dynamic_batch_size"),
    "max_batch_delay_ms": ("max_batch_delay",),
    "predict_timeout": ("option.predict_timeout", "predict_timeout"),
    "model_loading_timeout": ("option.model_loading_timeout", "model_loading_timeout"),
}
_KEYS_OF_CALLS = {
    "min_workers": ("min_worker", "min_workers", "initial_workers"),
    "max_workers": ("max_worker", "max_workers"),
    "max_batch_delay_ms": ("max_batch_delay",),
}

# Eighteen digits fit into 64 bits; a longer number is no number of anything here.
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

Value = bool | int | float


class SettingError(ValueError):
    """A setting whose value cannot be meant: which one, what was said, and what would be understood."""

    def __init__(self, key: str, value: str, expected: str) -> None:
        shown = value if len(value) <= 40 else value[:40] + "..."
        super().__init__(f"{key} is {shown!r}, expected {expected}")
        self.key = key
        self.value = value
        self.expected = expected


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What was said of one model; None is "not said". Times in seconds, but for the delay, named so."""

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: float | None = None
    max_idle_time: float | None = None
    job_queue_size: int | None = None
    # The share of the CPU, against the other models'.
    weight: float | None = None
    # Never evicted for memory.
    pinned: bool | None = None
    # A worker that holds more is replaced.
    max_memory_mb: float | None = None
    # There has to be so much for each worker that starts.
    required_memory_mb: float | None = None
    predict_timeout: float | None = None
    model_loading_timeout: float | None = None

    @classmethod
    def from_strings(cls, parameters: Mapping[str, str]) -> ModelSettings:
        """The settings among the parameters of a management call, in snake or camel case; -1 means "not said"."""
        said = {_snake_case(key): value for key, value in parameters.items() if value.strip() != "-1"}
        return _settings(_Said(said, _KEYS_OF_CALLS))

    @classmethod
    def unknown(cls, parameters: Mapping[str, str]) -> list[str]:
        """Those of the parameters of a management call that are no settings of a model."""
        known = set(_NAMES).union(*_KEYS_OF_CALLS.values()) - {"max_batch_delay_ms"}
        return [key for key in parameters if _snake_case(key) not in known]

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> ModelSettings:
        """The opposite of `values`, as strict as if somebody had just said them."""
        for name, value in values.items():
            if name not in _NAMES:
                raise SettingError(name, str(value), "nothing, since there is no such setting")
        # The text of a number is exact, and goes through the same checks as what is typed.
        return _settings(_Said({name: str(value) for name, value in values.items()}, {}))

    def values(self) -> dict[str, Value]:
        """What was said, by the names of the fields."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) is not None}

    def over(self, other: ModelSettings) -> ModelSettings:
        """What `self` says, and for the rest what `other` says.

        A bound from `other` gives way to one from `self` that it contradicts: who asks for four workers of a
        model whose file says at most two gets the four.
        """
        min_workers, max_workers = other.min_workers, other.max_workers
        if self.min_workers is not None and max_workers is not None:
            max_workers = max(max_workers, self.min_workers)
        if self.max_workers is not None and min_workers is not None:
            min_workers = min(min_workers, self.max_workers)
        said: dict[str, Any] = {"min_workers": min_workers, "max_workers": max_workers, **self.values()}
        return replace(other, **said)


_NAMES = tuple(field.name for field in fields(ModelSettings))


def model_settings(properties: Mapping[str, str], keys: Mapping[str, tuple[str, ...]] = KEYS_OF_FILES) -> ModelSettings:
    """The settings in a model's file. The key for the device goes before the general one."""
    said = _Said(properties, keys)
    # To DJL Serving a maximum of zero or less means "as many as is usual", and files in use say so.
    max_workers = said.whole("max_workers")
    if max_workers is not None and max_workers <= 0:
        said = said.without("max_workers")
    return _settings(said)


def _settings(said: _Said) -> ModelSettings:
    max_workers = said.whole("max_workers", at_least=1)
    return ModelSettings(
        min_workers=said.whole("min_workers", at_least=0, at_most=min(max_workers or MAX_WORKERS, MAX_WORKERS)),
        max_workers=max_workers,
        batch_size=said.whole("batch_size", at_least=1, at_most=MAX_BATCH_SIZE),
        max_batch_delay_ms=said.number("max_batch_delay_ms", "milliseconds"),
        max_idle_time=said.number("max_idle_time", "seconds"),
        job_queue_size=said.whole("job_queue_size", at_least=1),
        weight=said.number("weight", above_zero_to=MAX_WEIGHT),
        pinned=said.flag("pinned"),
        max_memory_mb=said.number("max_memory_mb", "megabytes", above_zero_to=MAX_MEMORY_MB),
        required_memory_mb=said.number("required_memory_mb", "megabytes", at_most=MAX_MEMORY_MB),
        predict_timeout=said.number("predict_timeout", "seconds", above_zero_to=MAX_TIMEOUT),
        model_loading_timeout=said.number("model_loading_timeout", "seconds", above_zero_to=MAX_TIMEOUT),
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """Texts by the keys of where they come from, read by the names of our fields; None for what is not there."""

    texts: Mapping[str, str]
    keys: Mapping[str, tuple[str, ...]]

    def find(self, name: str) -> tuple[str, str] | None:
        """The first of the keys that is there, and what it says."""
        for key in self.keys.get(name, (name,)):
            if key in self.texts:
                return key, self.texts[key].strip()
        return None

    def without(self, name: str) -> _Said:
        unsaid = self.keys.get(name, (name,))
        return _Said({key: text for key, text in self.texts.items() if key not in unsaid}, self.keys)

    def whole(self, name: str, at_least: int | None = None, at_most: int | None = None) -> int | None:
        found = self.find(name)
        if found is None:
            return None
        key, text = found
        number = int(text) if _WHOLE.fullmatch(text) else None
        too_small = number is not None and at_least is not None and number < at_least
        too_large = number is not None and at_most is not None and number > at_most
        if number is None or too_small or too_large:
            expected = "a whole number"
            if at_least is not None:
                expected += f" of {at_least} or more" if at_most is None else f" from {at_least} to {at_most}"
            raise SettingError(key, text, expected)
        return number

    def number(
        self, name: str, unit: str | None = None, above_zero_to: int | None = None, at_most: float = sys.float_info.max
    ) -> float | None:
        """A finite number of 0 or more; where it may not be 0, at most as large as is said."""
        found = self.find(name)
        if found is None:
            return None
        key, text = found
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        meant = 0 <= number <= at_most if above_zero_to is None else 0 < number <= above_zero_to
        if not meant:
            expected = "a number" if unit is None else f"a number of {unit}"
            expected += ", 0 or more" if above_zero_to is None else f" above 0, at most {above_zero_to}"
            raise SettingError(key, text, expected)
        return number

    def flag(self, name: str) -> bool | None:
        found = self.find(name)
        if found is None:
            return None
        key, text = found
        if text.lower() not in ("true", "false"):
            raise SettingError(key, text, "true or false")
        return text.lower() == "true"


def _snake_case(key: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", key).lower()
