"""What this process may really use of the host: CPUs and memory, as its affinity and its control groups leave them.

A process is in one control group of every hierarchy: of the one of version 2, and of one for each controller of
version 1. Both may be there (a "hybrid" host). A limit counts for everything below it, so each group is read together
with those above it, as far up as a mount shows them:

    /proc/self/cgroup      4:memory:/jobs/mine                        our group, as our cgroup namespace names it
    /proc/self/mountinfo   ... /jobs /sys/fs/cgroup/memory ...        the group that is mounted, and where
    so                     /sys/fs/cgroup/memory/mine and, above it, /sys/fs/cgroup/memory

In a container the group that is mounted is mostly its own, and what is above it cannot be seen.

This runs wherever somebody starts a container: whatever is missing, unreadable or makes no sense is no limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

# CPUs. The kernel takes no quota below 1 ms in a period of 1 s; whoever divides by less than this plans for nothing.
_LEAST_CPUS = 0.01

# Digits of the largest number of 64 bits; what is longer was not written by the kernel.
_DIGITS = 20

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Limits:
    """Finds the groups once: a service manager puts a process into its group before it starts. The limits themselves
    are read whenever they are asked for, because they do change (`systemctl set-property`, a pod resized in place).

    Everything in /proc and /sys is looked for below `root`; affinity and the host's memory are always the real ones.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._cpu_groups = list(_groups(root, "cpu"))
        self._memory_groups = [
            group
            for directory in _groups(root, "memory")
            for group in (_MemoryGroup.version_2(directory), _MemoryGroup.version_1(directory))
            if _read(group.limit_file)
        ]

    @property
    def cpus(self) -> float:
        """The smaller of the affinity and of the quotas, which need not be whole numbers. Always above 0."""
        quotas = [quota for directory in self._cpu_groups if (quota := _cpu_quota(directory)) is not None]
        return max(_LEAST_CPUS, min([float(len(os.sched_getaffinity(0))), *quotas]))

    @property
    def memory(self) -> int:
        """Bytes: the smaller of the host's memory and of the limits."""
        limits = [limit for group in self._memory_groups if (limit := group.limit()) is not None]
        return min([int(psutil.virtual_memory().total), *limits])

    def available_memory(self) -> int:
        """Bytes that could be taken now without swapping and without the OOM killer.

        Made for an event loop: 0.12 ms in three groups without a limit, of which psutil takes 0.055; 0.27 ms if each of
        the three has one.
        """
        host = psutil.virtual_memory()
        available = int(host.available)
        for group in self._memory_groups:
            limit = group.limit()
            # A limit as large as the host (version 1 writes "none" as such) is spared the reading of its statistics.
            if limit is not None and limit < host.total:
                available = min(available, group.available(limit))
        return available


@dataclass(frozen=True, slots=True)
class _MemoryGroup:
    """The files of a group that may have a limit, by the names of one version."""

    limit_file: Path
    usage_file: Path
    statistics_file: Path
    # The line of the statistics with the file cache that goes first, that of the groups below included.
    cache_line: re.Pattern[bytes]

    @classmethod
    def version_1(cls, directory: Path) -> _MemoryGroup:
        return cls(
            directory / "memory.limit_in_bytes",
            directory / "memory.usage_in_bytes",
            directory / "memory.stat",
            re.compile(rb"^total_inactive_file (\d+)$", re.MULTILINE),
        )

    @classmethod
    def version_2(cls, directory: Path) -> _MemoryGroup:
        return cls(
            directory / "memory.max",
            directory / "memory.current",
            directory / "memory.stat",
            re.compile(rb"^inactive_file (\d+)$", re.MULTILINE),
        )

    def limit(self) -> int | None:
        # Nothing could run under a limit of 0.
        return _number(_read(self.limit_file)) or None

    def available(self, limit: int) -> int:
        """What the group has left. Usage that cannot be read is none: the limit is still known."""
        usage = _number(_read(self.usage_file)) or 0
        found = self.cache_line.search(_read(self.statistics_file))
        cache = (found and _number(found[1])) or 0
        return max(0, limit - max(0, usage - cache))


def _cpu_quota(directory: Path) -> float | None:
    """CPUs; by the file of version 2 or by the two of version 1, only one of which can be in a directory."""
    fields = _read(directory / "cpu.max").split() or [
        _read(directory / "cpu.cfs_quota_us"),
        _read(directory / "cpu.cfs_period_us"),
    ]
    if len(fields) != 2:
        return None
    quota, period = map(_number, fields)
    return quota / period if quota and period else None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's groups that may limit what `controller` controls, and of those above them."""
    for line in _lines(root / "proc/self/cgroup"):
        # Hierarchy, its controllers, path. Version 2 is the one that names no controllers.
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if controller in controllers.split(","):
            mounts = _mounts(root, "cgroup", controller)
        elif hierarchy == "0" and not controllers:
            mounts = _mounts(root, "cgroup2", None)
        else:
            continue
        yield from _directories(PurePosixPath(path), mounts)


def _mounts(root: Path, filesystem: str, controller: str | None) -> list[tuple[PurePosixPath, Path]]:
    """For each mount of a hierarchy the group that is mounted, and where."""
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        # The number of fields before the dash varies.
        first, _, second = line.partition(" - ")
        mount, kind = first.split(" "), second.split(" ")
        if len(mount) < 6 or len(kind) < 3 or kind[0] != filesystem:
            continue
        if controller is None or controller in kind[2].split(","):
            group, point = (_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), field) for field in mount[3:5])
            found.append((PurePosixPath(group), root / point.lstrip("/")))
    return found


def _directories(path: PurePosixPath, mounts: list[tuple[PurePosixPath, Path]]) -> Iterator[Path]:
    """A group's directory and those above it, in every mount that shows them."""
    inside = [(path.relative_to(group), point) for group, point in mounts if path.is_relative_to(group)]
    # A mount that does not have our group, or not by this name, is what a container has been given as its own.
    for below, point in inside or [(PurePosixPath(), point) for _, point in mounts]:
        # A process that was put outside its own cgroup namespace (`/../other`): what is mounted is somebody else's.
        if ".." not in (below if inside else path).parts:
            yield from (point / part for part in (below, *below.parents))


def _lines(file: Path) -> list[str]:
    # Not splitlines(), which also ends lines at characters that a group's name may have.
    return os.fsdecode(_read(file)).split("\n")


def _read(file: Path) -> bytes:
    """Nothing if the file cannot be read, or if its name, of a damaged table, can be none (ValueError)."""
    try:
        return file.read_bytes()
    except (OSError, ValueError):
        return b""


def _number(text: bytes) -> int | None:
    """What the kernel writes for a number; not "max", not -1."""
    text = text.strip()
    return int(text) if text.isdigit() and len(text) <= _DIGITS else None
