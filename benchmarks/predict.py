"""Says how many microseconds a linear model takes for one row, in this process: `python -m benchmarks.predict`."""

from __future__ import annotations

import os
import statistics
import sys
import time

# As in a worker, and before NumPy is imported.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import numpy as np

from benchmarks import models
from mmserve_worker import warming

_CALLS = 5000


def main() -> None:
    warming.warm_up()
    model = models.linear(2.0)
    rows = np.array([[0.5]])
    times = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        model.predict(rows)
        times.append(time.perf_counter() - started)
    sys.stdout.write(f"{statistics.median(times) * 1e6:.1f}\n")


if __name__ == "__main__":
    main()
