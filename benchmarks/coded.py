"""Models with code of their own, that do what a benchmark is about before they answer 2x + 1 for [[x]]."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from benchmarks import traffic

_SOURCE = """
import ctypes
import time

from djl_python import Input, Output


def handle(inputs: Input) -> Output:
    if inputs.is_empty():
        return None
    x = inputs.get_as_json()[0][0]
{does}
    return Output().add_as_json({{"predictions": [2 * x + 1]}})
"""


def write(store: Path, name: str, does: str, properties: Mapping[str, str]) -> None:
    """The model as a directory of a store. `does` are statements that may look at `x`."""
    directory = store / name
    directory.mkdir(parents=True)
    (directory / "model.py").write_text(_SOURCE.format(does=textwrap.indent(does.strip(), "    ")))
    (directory / "serving.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))


def body(x: float) -> bytes:
    return b"[[%g]]" % x


def call(name: str, x: float = 0.5) -> traffic.Call:
    return traffic.call(name, f"/predictions/{name}", body(x), [2 * x + 1])
