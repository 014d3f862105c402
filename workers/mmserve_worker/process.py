"""What a process does to itself: its parent, its priority, its name, its descriptors.

Linux only. What the standard library has no call for goes through the C library by ctypes, each in one function.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
from collections.abc import Iterable

_LIBC = ctypes.CDLL(None, use_errno=True)
# Like ctypes.pythonapi it keeps the interpreter's lock during a call, and unlike it remembers errno.
_PYTHON = ctypes.PyDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_CLONE_PARENT = 0x8000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())


def fork_sibling() -> int:
    """Forks like `os.fork`, but makes the new process a child of the caller's parent. Returns 0 in the new process.

    The template forks the workers, and the front has to be their parent: it learns from the kernel how each one died,
    they die with it (PR_SET_PDEATHSIG, which follows the parent), and they live on when the template dies.
    `os.fork` twice over would give a grandchild away as well, but costs twice: 15-17 ms instead of 7 ms, measured
    with scikit-learn imported. multiprocessing's fork server has the same two faults: its children are its own.

    The caller must be single-threaded: the locks that the C library's own fork would reset are then free.
    """
    if _SYS_CLONE is None:
        raise OSError(f"no clone system call known for {platform.machine()}")
    _PYTHON.syscall.restype = ctypes.c_long
    _PYTHON.PyOS_BeforeFork()
    flags = _CLONE_PARENT | signal.SIGCHLD
    pid: int = _PYTHON.syscall(ctypes.c_long(_SYS_CLONE), ctypes.c_long(flags), *(ctypes.c_long(0),) * 4)
    if pid == 0:
        _PYTHON.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    _PYTHON.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends. Ends it now if `parent` is no longer its parent."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def thread_count() -> int:
    """Threads of this process, those of native libraries included."""
    return len(os.listdir("/proc/self/task"))


def set_title(title: str) -> None:
    """Shows `title` in `ps` and `top` instead of the command line this process was started with.

    The kernel shows the bytes between two addresses of this process's own memory; they are written over. A title
    longer than the original command line is cut.
    """
    stat = os.open("/proc/self/stat", os.O_RDONLY)
    # The fields after the process name, which may itself hold spaces; 48 and 49 of proc(5) are these.
    fields = os.read(stat, 4096).rpartition(b")")[2].split()
    os.close(stat)
    start, end = int(fields[45]), int(fields[46])
    room = end - start
    if start and room > 1:
        ctypes.memmove(start, title.encode()[: room - 1].ljust(room, b"\0"), room)
    _LIBC.prctl(_PR_SET_NAME, title.removeprefix("mmserve: ").encode()[:15], 0, 0, 0)


def close_all_but(kept: Iterable[int]) -> None:
    """Closes every descriptor above standard error except those."""
    keep = {0, 1, 2, *kept}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            # The descriptor of the listing itself is gone by now.
            with contextlib.suppress(OSError):
                os.close(int(name))


def become_victim(nice: int, oom_score: int) -> None:
    """Lowers this process's priority, and has the kernel's out-of-memory killer prefer it to the front."""
    os.nice(nice)
    # It may only be raised, and a container's runtime may have raised it already.
    # Not open(): what it touches on its way is 0.7 MB of pages that are then no longer shared with the template.
    score = os.open("/proc/self/oom_score_adj", os.O_RDWR)
    if int(os.read(score, 16)) < oom_score:
        os.write(score, b"%d" % oom_score)
    os.close(score)
