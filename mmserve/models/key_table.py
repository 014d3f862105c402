"""A key of those files that say how a model is to be served: honoured, without effect, or refused, and why.

Each kind of file has one table of them, from which the documentation has its own. What a model relies on and would not
get is refused by its name when it is loaded; what makes no difference here is said once in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    HONOURED = "honoured"
    NO_EFFECT = "no effect"
    REFUSED = "refused"


class Key(NamedTuple):
    """`meaning` is what it does, or why it does nothing."""

    name: str
    kind: Kind
    meaning: str
    default: str = ""
    # Of one that is refused: the values that ask for what holds anyway, and how the documentation calls them.
    fine: Callable[[str], bool] = lambda value: False
    unless: str = ""


class RefusedKey(ValueError):
    """A key that asks for what mmserve does not do: which, and why."""


def honoured(name: str, meaning: str, default: str = "") -> Key:
    return Key(name, Kind.HONOURED, meaning, default)


def no_effect(name: str, reason: str) -> Key:
    return Key(name, Kind.NO_EFFECT, reason)


def refused(name: str, reason: str, *fine: str) -> Key:
    return Key(name, Kind.REFUSED, reason, "", *one_of(*fine))


def one_of(*values: str) -> tuple[Callable[[str], bool], str]:
    return lambda value: value.strip().lower() in values, ", ".join(f"`{value}`" for value in values if value)


def check(table: Mapping[str, Key], said: Mapping[str, str]) -> None:
    """Raises RefusedKey for the first key that is refused."""
    for name, value in said.items():
        key = table.get(name)
        if key is not None and key.kind is Kind.REFUSED and not key.fine(value):
            unless = f" (except {key.unless})" if key.unless else ""
            raise RefusedKey(f"{name}={value} is refused: {key.meaning}{unless}".replace("`", ""))


def remarks(table: Mapping[str, Key], said: Mapping[str, str]) -> list[str]:
    """What is said without effect, one line each."""
    known = [table[name] for name in said if name in table]
    return [f"{key.name} has no effect: {key.meaning}".replace("`", "") for key in known if key.kind is Kind.NO_EFFECT]


def without_effect(table: Sequence[Key]) -> Iterator[str]:
    """The rows of the documentation's table of what is not honoured."""
    for key in table:
        if key.kind is not Kind.HONOURED:
            unless = f", unless {key.unless}" if key.unless else ""
            yield f"| `{key.name}` | {key.kind.value}{unless} | {key.meaning} |"
