"""How a model wants to be served, as far as somebody said so: in serving.properties or when registering it.

Every field may be left unsaid; what then holds is decided where settings are used. Nothing here reads a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

# More workers than this for one model are a typing error too: they are started as soon as they are asked for.
MAX_WORKERS = 1_000
# More calls than this in one batch is a typing error, not a wish.
MAX_BATCH_SIZE = 10_000

# Eighteen digits fit into 64 bits; a longer number is no number of anything here.
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")

_T = TypeVar("_T")


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

    @classmethod
    def from_strings(cls, parameters: Mapping[str, str]) -> ModelSettings:
        """The settings among the parameters of a management call, in snake or camel case; -1 means "not said"."""
        said = {_snake_case(key): value for key, value in parameters.items() if value.strip() != "-1"}
        return _settings(
            said,
            min_workers_keys=("min_worker", "min_workers", "initial_workers"),
            max_workers=_whole(said, ("max_worker", "max_workers"), at_least=1),
            batch_size_keys=("batch_size",),
        )

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
        return ModelSettings(
            min_workers=_first(self.min_workers, min_workers),
            max_workers=_first(self.max_workers, max_workers),
            batch_size=_first(self.batch_size, other.batch_size),
            max_batch_delay_ms=_first(self.max_batch_delay_ms, other.max_batch_delay_ms),
            max_idle_time=_first(self.max_idle_time, other.max_idle_time),
            job_queue_size=_first(self.job_queue_size, other.job_queue_size),
        )


def model_settings(properties: Mapping[str, str]) -> ModelSettings:
    """The settings in a serving.properties. The key for the device goes before the general one."""
    # To DJL Serving a maximum of zero or less means "as many as is usual", and files in use say so.
    max_workers = _whole(properties, ("cpu.maxWorkers", "maxWorkers"), at_least=None)
    return _settings(
        properties,
        min_workers_keys=("cpu.minWorkers", "minWorkers"),
        max_workers=max_workers if max_workers is not None and max_workers > 0 else None,
        batch_size_keys=("batch_size", "max_dynamic_batch_size"),
    )


def _settings(
    said: Mapping[str, str],
    min_workers_keys: tuple[str, ...],
    max_workers: int | None,
    batch_size_keys: tuple[str, ...],
) -> ModelSettings:
    return ModelSettings(
        min_workers=_whole(said, min_workers_keys, at_least=0, at_most=min(max_workers or MAX_WORKERS, MAX_WORKERS)),
        max_workers=max_workers,
        batch_size=_whole(said, batch_size_keys, at_least=1, at_most=MAX_BATCH_SIZE),
        max_batch_delay_ms=_time(said, "max_batch_delay", "milliseconds"),
        max_idle_time=_time(said, "max_idle_time", "seconds"),
        job_queue_size=_whole(said, ("job_queue_size",), at_least=1),
    )


def _whole(
    said: Mapping[str, str], keys: tuple[str, ...], at_least: int | None, at_most: int | None = None
) -> int | None:
    """The number under the first of the keys that is there."""
    key = next((key for key in keys if key in said), None)
    if key is None:
        return None
    value = said[key].strip()
    number = int(value) if _WHOLE.fullmatch(value) else None
    too_small = number is not None and at_least is not None and number < at_least
    too_large = number is not None and at_most is not None and number > at_most
    if number is None or too_small or too_large:
        expected = "a whole number"
        if at_least is not None:
            expected += f" of {at_least} or more" if at_most is None else f" from {at_least} to {at_most}"
        raise SettingError(key, value, expected)
    return number


def _time(said: Mapping[str, str], key: str, unit: str) -> float | None:
    if key not in said:
        return None
    value = said[key].strip()
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise SettingError(key, value, f"a number of {unit}, 0 or more")
    return number


def _snake_case(key: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", key).lower()


def _first(said: _T | None, otherwise: _T | None) -> _T | None:
    return otherwise if said is None else said
