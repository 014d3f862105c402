"""A loaded model as callers see it: which methods it has, and how what they send becomes what it takes.

One module per library makes this of the library's own object; what answers is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mmserve_worker.calls import Buffer
from mmserve_worker.codecs.rows import Array, Columns

# Methods that take rows and return something for each of them, and that a caller may therefore name. The
# first that a model has is its default: transformers have no predict.
METHODS = (
    "predict",
    "transform",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "apply",
)

Method = Callable[[Any], Any]


class Inputs(Protocol):
    def read(self, body: Buffer, content_type: str) -> Columns:
        """A request as arrays that can be joined with other callers', each of them with an entry for every row.

        Raises CallError for what the model cannot be asked.
        """

    def assembled(self, columns: list[Array]) -> Any:
        """What the model's methods take."""


@dataclass(frozen=True, slots=True)
class Served:
    """`methods` begins with the one that is called where nobody names one."""

    kind: str
    methods: Mapping[str, Method]
    inputs: Inputs
    # Whether rows of several callers may be answered by one call.
    can_join: bool


def methods_of(model: object) -> dict[str, Method]:
    return {method: getattr(model, method) for method in METHODS if hasattr(model, method)}
