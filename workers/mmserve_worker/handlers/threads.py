"""How many threads gradient boosting inside of a model may use.

OMP_NUM_THREADS does not bind it: LightGBM's estimators ask for a thread for each core, and XGBoost's keep the number
they were trained with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmserve_worker.handlers.options import thread_count


def limit(model_parts: Iterable[Any], options: Mapping[str, str]) -> None:
    for part in model_parts:
        package = str(type(part).__module__).partition(".")[0]
        if package == "xgboost" and type(part).__name__ == "Booster":
            part.set_param({"nthread": thread_count(options)})
        elif package in {"xgboost", "lightgbm"} and hasattr(part, "n_jobs"):
            part.n_jobs = thread_count(options)
