"""scikit-learn's models, and all that have the methods of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmserve_worker.handlers import anatomy, threads
from mmserve_worker.handlers.features import Features
from mmserve_worker.handlers.options import is_batch_size_said
from mmserve_worker.handlers.served import Served, methods_of


def served(model: Any, options: Mapping[str, str]) -> Served:
    model_parts = list(anatomy.parts(model))
    threads.limit(model_parts, options)
    return Served(
        type(model).__name__,
        methods_of(model),
        Features.of_estimator(model, model_parts),
        anatomy.are_rows_independent(model_parts, is_batch_size_said(options)),
    )
