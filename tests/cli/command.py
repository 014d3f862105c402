"""The mmserve command as a shell would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.servers import DEADLINE, MARKER, new_marker, processes_of, wait_until

ANY_PORT = "http://127.0.0.1:0"


class Command:
    """Runs `mmserve`, with settings from the environment that keep it to a directory and to free ports."""

    def __init__(self, directory: Path) -> None:
        self.marker = new_marker()
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MMSERVE_")}
        self.environment = {
            **clean,
            MARKER: self.marker,
            "MMSERVE_RUNTIME_DIR": str(directory / "run"),
            "MMSERVE_CACHE_DIR": str(directory / "cache"),
            "MMSERVE_STATE_DIR": str(directory / "state"),
            "MMSERVE_INFERENCE_ADDRESS": ANY_PORT,
            "MMSERVE_MANAGEMENT_ADDRESS": ANY_PORT,
            "MMSERVE_PRELOAD": "sklearn.linear_model",
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.popen(*arguments, **environment)
        stdout, stderr = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def popen(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """In a process group of its own, as a shell starts it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mmserve", *arguments],
            cwd=self.directory,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._started.append(process)
        return process

    def succeed(self, *arguments: str, **environment: str) -> str:
        """What the command prints; fails the test if the command fails or complains."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
        return done.stdout

    def fail(self, *arguments: str, status: int = 1, **environment: str) -> str:
        """The one line that a failing command says."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stdout) == (status, ""), (done.stdout, done.stderr)
        (line,) = done.stderr.splitlines()
        return line

    def processes(self) -> list[int]:
        return processes_of(self.marker)

    def end(self) -> None:
        """Ends what is still running, which is nothing in a test that has passed."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            with process:
                pass
        wait_until(lambda: not self.processes(), "the end of all that the command has started")
