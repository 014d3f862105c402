"""mosec with the model that ours is measured with: one worker, which batches as it is told.

`python -m benchmarks.mosec_server --port PORT` with MODEL, a joblib file, BATCH, the largest batch, and WAIT,
milliseconds that it waits to be filled, in the environment: mosec reads the command line itself, of whoever imports it.
"""

from __future__ import annotations

import os
from typing import Any

import joblib
import numpy as np
from mosec import Server, Worker

BATCH, WAIT = int(os.environ["BATCH"]), int(os.environ["WAIT"])


class Predict(Worker):
    def __init__(self) -> None:
        self._model = joblib.load(os.environ["MODEL"])

    def forward(self, data: Any) -> Any:
        """Of one request, or with batches of several: mosec then gives and takes a list."""
        if BATCH == 1:
            return {"predictions": self._model.predict(np.asarray(data)).tolist()}
        sizes = [len(rows) for rows in data]
        predictions = self._model.predict(np.asarray([row for rows in data for row in rows])).tolist()
        ends = np.cumsum(sizes).tolist()
        return [{"predictions": predictions[end - size : end]} for end, size in zip(ends, sizes, strict=True)]


if __name__ == "__main__":
    server: Any = Server()  # type: ignore[no-untyped-call]  # mosec's has no types
    server.append_worker(Predict, num=1, max_batch_size=BATCH, max_wait_time=WAIT)
    server.run()
