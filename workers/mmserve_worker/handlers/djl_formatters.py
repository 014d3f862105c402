"""The decorators of djl_python.input_parser and .output_formatter: they mark a function and leave it as it is."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

PARTS = ("input_formatter", "output_formatter", "init_handler", "prediction_handler")
_MARK = "mmserve_part"

Function = Callable[..., Any]


def decorator(part: str) -> Callable[..., Any]:
    """Written `@part`, `@part()` or with arguments, which say nothing here."""

    def decorate(*arguments: Any, **_: Any) -> Any:
        if len(arguments) == 1 and callable(arguments[0]):
            return mark(arguments[0])
        return mark

    def mark(function: Function) -> Function:
        setattr(function, _MARK, part)
        return function

    return decorate


def is_part(value: Any, part: str) -> bool:
    # By its type: what else a module holds may run code when it is looked at.
    return type(value) is FunctionType and getattr(value, _MARK, None) == part
