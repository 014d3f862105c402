"""Models for tests with a model.py for DJL Serving, and how these are asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mmserve_worker.calls import Handler, Reply

# Loads the source of a model.py; options are given by name, with `option_` for `option.`.
Load = Callable[..., Handler]


def handling(expression: str) -> str:
    return f"""
def handle(inputs):
    if inputs.is_empty():
        return None
    {expression}
"""


def json_of(reply: Reply) -> Any:
    assert isinstance(reply.body, bytes), reply
    return json.loads(reply.body)
