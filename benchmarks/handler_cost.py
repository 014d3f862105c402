"""What the scikit-learn handler costs over the model itself: `python benchmarks/handler_cost.py`.

Microseconds for a batch of 1 and of 32 JSON calls of `[[0.5]]` to a LinearRegression, against `model.predict` of as
many rows, in one process and one run. The models' memory is not evicted in between: a busy host's caches are colder.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression

from mmserve_worker import handlers
from mmserve_worker.calls import Call, ModelSpec

REPEATS = 101
CALLS_A_REPEAT = 50


def compared(model: Callable[[], object], handler: Callable[[], object]) -> tuple[float, float]:
    """Medians in microseconds. They take turns, so that a busy moment of the host slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for run, taken in zip((model, handler), times, strict=True):
            taken.append(timeit.timeit(run, number=CALLS_A_REPEAT) / CALLS_A_REPEAT * 1e6)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    model = LinearRegression().fit(np.arange(10.0).reshape(-1, 1), np.arange(10.0))
    with tempfile.TemporaryDirectory() as directory:
        joblib.dump(model, Path(directory) / "model.joblib")
        handler = handlers.load(ModelSpec("benchmark", directory))
    for count in (1, 32):
        calls = [Call(memoryview(b"[[0.5]]")) for _ in range(count)]
        predict = functools.partial(model.predict, np.full((count, 1), 0.5))
        alone, handled = compared(predict, functools.partial(handler.answer, calls))
        sys.stdout.write(
            f"{count:3} calls: predict {alone:6.1f} us, handler {handled:6.1f} us, "
            f"{handled / alone:.2f} x, {(handled - alone) / count:.1f} us more a call\n"
        )


if __name__ == "__main__":
    main()
