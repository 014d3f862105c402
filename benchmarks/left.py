"""What is left of a server: nothing should be."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import servers

_SEGMENTS = Path("/dev/shm")


class Left:
    """Made before the server is started."""

    def __init__(self, directory: Path) -> None:
        self._run_file = servers.run_file(directory)
        self._segments = set(os.listdir(_SEGMENTS))

    def of(self, marker: str) -> list[str]:
        """What there is of the server with this marker now: its processes, its run file, shared memory."""
        found = processes(marker)
        if self._run_file.exists():
            found.append(f"the run file {self._run_file.name}")
        found += [f"/dev/shm/{name}" for name in set(os.listdir(_SEGMENTS)) - self._segments]
        return found


def processes(marker: str) -> list[str]:
    """The living processes of a server and of all that it has started, whoever their parent is by now."""
    wanted = f"{servers.MARKER}={marker}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes().split(b"\0")
            state = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0]
            title = Path(entry.path, "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        # One that its new parent has not reaped holds nothing any more.
        if wanted in environment and state != "Z":
            found.append(f"process {entry.name} ({title})")
    return found
