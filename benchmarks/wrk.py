"""Load by wrk: one thread, closed loop, the same for our server and the reference."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from benchmarks.servers import Address, ServerError

# Longer than any answer under load takes: what wrk calls a timeout is then one.
_TIMEOUT = "30s"

_SCRIPT = """
local paths = {PATHS}
local requests = {}
local at = 0

init = function()
  local headers = {["Content-Type"] = "application/json"}
  for i, path in ipairs(paths) do
    requests[i] = wrk.format("POST", path, headers, BODY)
  end
end

request = function()
  at = at % #requests + 1
  return requests[at]
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests":%d,"seconds":%f,"p50":%d,"p99":%d,"refused":%d,"broken":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Load(NamedTuple):
    """What came of a load. `p50` and `p99` in microseconds."""

    requests: int
    seconds: float
    p50: int
    p99: int
    # Answers with a status of 400 or more, and what got no answer at all.
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, p50 {self.p50:,} us, p99 {self.p99:,} us"


def is_there() -> bool:
    return shutil.which("wrk") is not None


def post(address: Address, paths: Sequence[str], body: str, *, connections: int, seconds: int) -> Load:
    """Posts the body to all paths in turn."""
    script = _SCRIPT.replace("PATHS", ", ".join(json.dumps(path) for path in paths)).replace("BODY", json.dumps(body))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        run = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={_TIMEOUT}", "-s", file.name, address.url],
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        raise ServerError(f"wrk: {run.stderr.strip() or run.stdout.strip()}")
    return Load(**msgspec.json.decode(run.stdout.rstrip().rpartition("\n")[2]))


def failures(loads: Sequence[Load]) -> str:
    """What went wrong in any of these, or nothing."""
    refused = sum(load.refused for load in loads)
    broken = sum(load.broken for load in loads)
    return f"{refused} error responses, {broken} socket errors" if refused or broken else ""
