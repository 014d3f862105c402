"""Starts the first template of an environment: a new interpreter, whose imports take a second or two.

Apart from all else, and importing next to nothing: a server starts its template before it imports itself, so that both
happen side by side.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmserve_worker import control

_PR_SET_DUMPABLE = 4
# What a template and its workers get of the server's environment: nothing that could be a secret of the server's.
_PASSED_ON = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"})
_PASSED_ON_PREFIXES = ("LC_", "LD_LIBRARY_PATH", "MALLOC_", "MMSERVE_", "PYTHON")
# One thread for each native library: a template must be single-threaded, and a worker has one core to itself.
_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
}
# ONNX Runtime otherwise starts a thread as it is imported, which a template must not have, to send home what it runs.
_SILENT = {"ORT_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Another Python than the server's own, and where it finds the worker's side, which is not installed there."""

    executable: Path
    worker_path: Path


def spawn(
    preload: Sequence[str], *, log_level: str, environment: Collection[str], interpreter: Interpreter | None = None
) -> socket.socket:
    """Starts a template and gives the front's end of its control socket, at whose end it ends. Raises OSError.

    `environment` names variables that it gets beside the usual ones.
    """
    executable = sys.executable if interpreter is None else str(interpreter.executable)
    variables = _environment(environment)
    if interpreter is not None:
        # Nothing of the server's own environment is found by way of these.
        variables = {name: value for name, value in variables.items() if not name.startswith("PYTHON")}
        variables["PYTHONPATH"] = str(interpreter.worker_path)
        variables["VIRTUAL_ENV"] = str(interpreter.executable.parent.parent)
    ours, theirs = control.socket_pair()
    with theirs:
        theirs.set_inheritable(True)
        # posix_spawn in the main thread, at whose end the kernel would end the template.
        os.posix_spawn(
            executable,
            [
                executable,
                # Nothing is imported from the directory that the server happens to run in.
                "-P",
                "-m",
                "mmserve_worker.template",
                f"--control={theirs.fileno()}",
                f"--log-level={log_level}",
                f"--title-room={'.' * 240}",
                "--preload",
                *preload,
            ],
            {**variables, **_ONE_THREAD, **_openmp_threads(), **_SILENT},
            setpgroup=0,
        )
    return ours


def hide_from_workers() -> None:
    """Keeps this process's environment and memory from others of the same user: what a template is not given of the
    environment, a model would read in /proc. Not from root; nor can its user trace it with py-spy or gdb any more.

    A program that it starts can be looked into as ever.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _openmp_threads() -> dict[str, str]:
    """OpenMP starts its threads when it is used, which a template does not, so that more of them may be asked for."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return {"OMP_NUM_THREADS": asked} if asked.isdecimal() and int(asked) > 0 else {}


def _environment(named: Collection[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name in named or name.startswith(_PASSED_ON_PREFIXES)
    }
