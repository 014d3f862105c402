"""Reads a model from its file, as the object that its library makes of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmserve_worker.handlers import libraries
from mmserve_worker.handlers.errors import LoadError, one_line

logger = logging.getLogger("mmserve.model")

# From here on arrays are mapped from the file, which several workers of one model share, and paged in as they
# are used. Below it a private copy is cheaper: every mapped array costs some 70 us, a file descriptor's worth
# of kernel work and at least a page, and a forest has hundreds of arrays.
MAP_FROM_BYTES = 16 * 1024 * 1024


def load(file: Path, name: str, options: Mapping[str, str]) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = _read(file, options)
        except (LoadError, MemoryError):
            raise
        except ModuleNotFoundError as error:
            raise libraries.missing(file, error) from error
        except Exception as error:  # whatever byte the reader stumbled on
            # KeyError(110), alone, tells nobody that the file is no pickle.
            raise LoadError(f"{file.name} cannot be loaded: {type(error).__name__}: {one_line(error)}") from error
    _log(name, caught)
    return model


def _read(file: Path, options: Mapping[str, str]) -> Any:
    if file.suffix == ".skops":
        return _load_skops(file, options)
    return libraries.read(file, options) if libraries.has_own_format(file) else _load_pickle(file)


def _load_pickle(file: Path) -> Any:
    import joblib

    if not _can_be_mapped(file):
        return joblib.load(file)
    with warnings.catch_warnings():
        # Files of old versions of joblib have arrays at odd addresses, which compiled code may crash on.
        warnings.filterwarnings("error", message=".*not byte aligned")
        try:
            return joblib.load(file, mmap_mode="r")
        except UserWarning:
            return joblib.load(file)


def _can_be_mapped(file: Path) -> bool:
    with file.open("rb") as opened:
        # Any compression begins otherwise, and cannot be mapped.
        return file.stat().st_size >= MAP_FROM_BYTES and opened.read(1) == libraries.PICKLE


def _load_skops(file: Path, options: Mapping[str, str]) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    trusted = [name.strip() for name in options.get("option.skops_trusted_types", "").split(",")]
    try:
        return skops.io.load(file, trusted=[name for name in trusted if name])
    except UntrustedTypesFoundException as error:
        raise LoadError(f"{error} (option.skops_trusted_types is where trusted types are listed)") from error


def _log(name: str, caught: list[warnings.WarningMessage]) -> None:
    """Each kind of warning once: a forest saved by another version of scikit-learn warns for every tree."""
    kinds: dict[type[Warning], warnings.WarningMessage] = {}
    for warning in caught:
        kinds.setdefault(warning.category, warning)
    for category, warning in kinds.items():
        logger.warning("model %s: %s: %s", name, category.__name__, str(warning.message).splitlines()[0])
