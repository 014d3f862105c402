"""Keeps the warnings that a model gives call after call from flooding the log."""

from __future__ import annotations

import logging
import warnings
from typing import TextIO

logger = logging.getLogger("mmserve.model")


def _welcome_plain_rows() -> None:
    """Rows as arrays are welcome to a model fitted on a data frame; their order and number are what counts."""
    warnings.filterwarnings("ignore", message="X does not have valid feature names")


# At the import, which is the template's: said by each worker it costs 0.3 MB of pages that are shared otherwise.
_welcome_plain_rows()
_SAID = warnings.filters[0]


def log_each_once(model: str) -> None:
    """From here on the process logs a warning once for each place that warns, however its text varies.

    For the whole process, and not around each call: warnings.catch_warnings takes 5 us and makes every module
    forget which warnings it has shown.
    """
    seen: set[tuple[type[Warning], str, int]] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        place = (category, filename, lineno)
        if place not in seen:
            seen.add(place)
            logger.warning("model %s: %s: %s", model, category.__name__, message)

    warnings.showwarning = show
    if _SAID not in warnings.filters:
        _welcome_plain_rows()
