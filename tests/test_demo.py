"""The demo in small: what it shows, and that nothing is left of it, even if it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import DEADLINE, MARKER, processes_of, wait_until

_ROOT = Path(__file__).parent.parent


def start_demo(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # With SIGINT ignored, as a script starts what is to run in the background.
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "benchmarks.demo", *options],
        cwd=_ROOT,
        env={**os.environ, MARKER: "demo", "TMPDIR": str(directory), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_serves_models_in_each_pattern_without_errors(tmp_path: Path) -> None:
    demo = start_demo(tmp_path, "--models=20", "--seconds=1")
    output, errors = demo.communicate(timeout=DEADLINE)
    assert demo.returncode == 0, errors
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["each for the first time", "evenly over all", "90 % to one", "90 % to 1 of 20"]
    for pattern, rate, median, late, failed, _, workers, memory in rows:
        assert float(rate.replace(",", "")) > 0, pattern
        assert float(median.removesuffix(" ms")) <= float(late.removesuffix(" ms"))
        assert failed == "0"
        assert int(workers) >= 20
        assert re.fullmatch(r"\d+\.\d\d GiB", memory)
    assert int(rows[0][5]) >= 20
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    demo = start_demo(tmp_path, "--models=20", "--seconds=30")
    # The server's directory for unpacked archives: it has been asked for models.
    wait_until(lambda: list(tmp_path.glob("*/cache/*")), "the first model to be unpacked")
    demo.send_signal(number)
    demo.communicate(timeout=DEADLINE)
    assert demo.returncode
    assert not processes_of("demo")
    assert not list(tmp_path.iterdir())
