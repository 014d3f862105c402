"""What a model's `option.env` asks for: environment variables of its worker, set before anything of it is loaded.

A library that the template has imported has read its variables by then. For OpenMP's threads, which such libraries
agree on, the number is set by threadpoolctl instead, where there is one: scikit-learn brings it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

_THREADS = "OMP_NUM_THREADS"


def apply(options: Mapping[str, str]) -> None:
    """Takes `A=b,C=d`, which the front has looked at."""
    said = options.get("option.env")
    if not said:
        # An update of os.environ with nothing takes 50 KB of shared pages from each worker.
        return
    parts = (part.partition("=") for part in said.split(","))
    variables = {name.strip(): value.strip() for name, equals, value in parts if equals}
    os.environ.update(variables)
    threads = variables.get(_THREADS, "")
    if threads.isdecimal() and int(threads) > 0:
        try:
            importlib.import_module("threadpoolctl").threadpool_limits(int(threads), user_api="openmp")
        except ImportError:
            # Without scikit-learn, no library was imported yet that has read it.
            return
