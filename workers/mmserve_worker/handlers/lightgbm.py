"""LightGBM's models: boosters as its text files hold them, and its estimators for scikit-learn's interface.

A text file holds no classes: a classifier's booster predicts probabilities, whatever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers import results, threads
from mmserve_worker.handlers.features import Features
from mmserve_worker.handlers.options import thread_count
from mmserve_worker.handlers.served import Method, Served, methods_of

# Objectives whose predictions are probabilities, of the positive class or of all.
_PROBABILITIES = frozenset({"binary", "multiclass", "multiclassova"})


def read(file: Path, options: Mapping[str, str]) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=file.read_text(encoding="utf-8"))


def served(model: Any, options: Mapping[str, str]) -> Served:
    count = thread_count(options)
    threads.limit([model], options)
    is_booster = type(model).__name__ == "Booster"
    booster = model if is_booster else model.booster_
    header = _header(booster)
    objective = header.get("objective", "").partition(" ")[0]
    names = tuple(booster.feature_name())
    if names == tuple(f"Column_{index}" for index in range(len(names))):
        # What it calls the columns of an array.
        names = ()
    kind = type(model).__name__
    return Served(
        kind,
        _methods(booster, objective, count) if is_booster else methods_of(model),
        Features(kind, booster.num_feature(), names, _categorical(booster, names, header)),
        can_join=True,
    )


def _header(booster: Any) -> dict[str, str]:
    """What the model's file says before its trees."""
    text = booster.model_to_string(num_iteration=1).partition("\n\n")[0]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _categorical(booster: Any, names: tuple[str, ...], header: Mapping[str, str]) -> list[str]:
    """The columns that were categories in the data frame that it was trained on."""
    if not booster.pandas_categorical or not names:
        return []
    said = list(zip(names, header.get("feature_infos", "").split(), strict=True))
    found = [name for name, values in said if not values.startswith(("[", "none"))]
    if len(found) == len(booster.pandas_categorical):
        return found
    # "none" is said of a column with a single value, a category or a number.
    return [name for name, values in said if not values.startswith("[")]


def _methods(booster: Any, objective: str, thread_limit: int) -> dict[str, Method]:
    def predict(rows: Any) -> Any:
        return booster.predict(rows, num_threads=thread_limit)

    def predict_proba(rows: Any) -> Array:
        return results.of_all_classes(predict(rows))

    methods: dict[str, Method] = {"predict": predict}
    if objective in _PROBABILITIES:
        methods["predict_proba"] = predict_proba
    return methods
