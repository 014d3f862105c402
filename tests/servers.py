"""Real servers for tests: each a process of its own on free ports, and what is left of it afterwards."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from mmserve.cli.serve import Outcome

# In the environment of each server and of all that it starts, however deep: what begins with LC_ is passed on to
# workers, and is not taken for a setting that was misspelt.
MARKER = "LC_TESTED_MMSERVE"
# What nothing in these tests may take longer than; the usual is milliseconds.
DEADLINE = 30.0
# What to preload where no model needs scikit-learn: its import is most of a server's start.
LIGHT = "numpy"
# Others may be running these tests on the same host.
_RUN = f"{os.getpid()}-"


def new_marker() -> str:
    return f"{_RUN}{uuid.uuid4().hex}"


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Waits for a condition to be true, and returns what it gave."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {deadline} seconds: {what}"
        # Between two looks, not instead of them.
        time.sleep(0.005)
    return found


def processes_of(marker: str) -> list[int]:
    """The living processes that belong to a server, or with an empty marker to any of this run of the tests."""
    wanted = f"{MARKER}={marker or _RUN}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                environment = Path(entry.path, "environ").read_bytes()
                state = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if wanted in environment and state != "Z":
                found.append(int(entry.name))
    return found


def mapped_files(pid: int) -> str:
    """What a process has mapped; nothing once it has ended, as a template does when the next one is ready."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Server:
    """A running mmserve. `settings` are those of the command line, by their names."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.marker = new_marker()
        self.log = directory / f"{self.marker}.log"
        self.settings = {
            "inference_address": "http://127.0.0.1:0",
            "management_address": "http://127.0.0.1:0",
            "runtime_dir": str(directory / "run"),
            "cache_dir": str(directory / "cache"),
            "state_dir": str(directory / "state"),
            **settings,
        }
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        reading, writing = os.pipe()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mmserve", "start", f"--ready-fd={writing}", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                env={**os.environ, MARKER: self.marker, **(environment or {})},
                start_new_session=True,
            )
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            assert select.select([pipe], [], [], DEADLINE)[0], self.log.read_text()
            outcome = msgspec.json.decode(pipe.read() or b"{}", type=Outcome)
        assert outcome.running is not None, outcome.error or self.log.read_text()
        self.url = outcome.running.inference
        self.management_url = outcome.running.management
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE, trust_env=False)
        self.management = httpx.Client(base_url=self.management_url, timeout=DEADLINE, trust_env=False)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the inference listener, for raw sockets."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def predict(self, model: str, rows: Any, **options: Any) -> httpx.Response:
        return self.client.post(f"/predictions/{model}", json=rows, **options)

    def predictions(self, model: str, rows: Any, **options: Any) -> Any:
        """What the model answers; fails the test if that is an error."""
        response = self.predict(model, rows, **options)
        assert response.status_code == 200, response.text
        return response.json()["predictions"]

    def describe(self, model: str) -> dict[str, Any]:
        response = self.management.get(f"/models/{model}")
        assert response.status_code == 200, response.text
        described: dict[str, Any] = response.json()
        return described

    def worker_pids(self, model: str) -> list[int]:
        return [worker["pid"] for worker in self.describe(model)["workers"] if worker["pid"]]

    def template_pid(self) -> int:
        """The template, once it is ready."""
        return int(wait_until(lambda: self.management.get("/status").json()["template"]["pid"], "a template"))

    def template_threads(self) -> int:
        """Of the template that is ready now: the one that was may end while one looks at it."""

        def look() -> int:
            try:
                return len(os.listdir(f"/proc/{self.template_pid()}/task"))
            except (FileNotFoundError, ProcessLookupError):
                return 0

        return int(wait_until(look, "a template that stays"))

    def processes(self) -> list[int]:
        return processes_of(self.marker)

    def descriptors(self) -> int:
        """Open descriptors of the front."""
        return int(psutil.Process(self.process.pid).num_fds())

    def stop(self) -> int:
        """Stops it as systemd would, and returns its exit status."""
        self.client.close()
        self.management.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status: int = self.process.wait(DEADLINE)
        return status

    def end(self) -> None:
        """Stops it whatever state it is in, and proves that nothing of it is left."""
        try:
            self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(DEADLINE)
            wait_until(lambda: not self.processes(), f"the end of all processes of the server, see {self.log}")
