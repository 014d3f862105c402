"""What was said as a setting, or what would be one, in words."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgspec
from msgspec import inspect

_CHOICES = re.compile(r"\^\((.+)\)\$")


def read(value: object, hint: Any) -> Any:
    """The value of a setting with this type and the limits that are annotated to it.

    Raises ValueError, saying what would be understood.
    """
    # Nothing at all is what a variable says that is not set; as a path it would be the current directory.
    if value != "":
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(value, hint, strict=False)
    raise ValueError(_words(inspect.type_info(hint)))


def _words(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        return _words(kind.type)
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_words(each) for each in kind.types if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        return ("a whole number" if isinstance(kind, inspect.IntType) else "a number") + _limits(kind)
    if isinstance(kind, inspect.VarTupleType):
        return f"a list, each entry {_words(kind.item_type)}"
    if isinstance(kind, inspect.StrType):
        choices = _CHOICES.fullmatch(kind.pattern or "")
        return "one of " + ", ".join(choices[1].split("|")) if choices else "some text"
    raise TypeError(f"no setting is of {kind}")


def _limits(kind: inspect.IntType | inspect.FloatType) -> str:
    said = ((" above", kind.gt), (" of at least", kind.ge), (" and at most", kind.le))
    return "".join(f"{words} {int(limit)}" for words, limit in said if limit is not None)
