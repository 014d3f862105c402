"""What the scikit-learn handler costs over the model itself: `python benchmarks/handler_cost.py`.

Microseconds for a batch of 1 and of 32 JSON calls of `[[0.5]]` to a LinearRegression, against `model.predict` of as
many rows, in one process and one run. The models' memory is not evicted in between: a busy host's caches are colder.
"""

from __future__ import annotations

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

REPEATS = 31
CALLS_A_REPEAT = 200


def microseconds(run: Callable[[], object]) -> float:
    run()
    times = timeit.repeat(run, repeat=REPEATS, number=CALLS_A_REPEAT)
    return statistics.median(times) / CALLS_A_REPEAT * 1e6


def main() -> None:
    model = LinearRegression().fit(np.arange(10.0).reshape(-1, 1), np.arange(10.0))
    with tempfile.TemporaryDirectory() as directory:
        joblib.dump(model, Path(directory) / "model.joblib")
        handler = handlers.load(ModelSpec("benchmark", directory))
    for count in (1, 32):
        rows = np.full((count, 1), 0.5)
        calls = [Call(memoryview(b"[[0.5]]")) for _ in range(count)]
        alone = microseconds(lambda rows=rows: model.predict(rows))  # type: ignore[misc]
        handled = microseconds(lambda calls=calls: handler.answer(calls))  # type: ignore[misc]
        sys.stdout.write(
            f"{count:3} calls: predict {alone:6.1f} us, handler {handled:6.1f} us, "
            f"{handled / alone:.2f} x, {(handled - alone) / count:.1f} us more a call\n"
        )


if __name__ == "__main__":
    main()
