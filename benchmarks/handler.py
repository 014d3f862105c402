"""What the handler costs over the model itself: `benchmarks/handler_cost.py`, for the table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.report import Row
from benchmarks.rounds import Progress

_LINE = re.compile(r" *(\d+) calls: .* (-?[\d.]+) us more a call")


def run(directory: Path, progress: Progress) -> list[Row]:
    progress.doing("calling the handler in a process of its own")
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.handler_cost"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = []
    for line in run.stdout.splitlines():
        progress.say(line)
        if (found := _LINE.fullmatch(line)) is not None:
            rows.append(Row(f"handler: over predict, a call in a batch of {found[1]}", float(found[2]), "us"))
    return rows
