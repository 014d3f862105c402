"""One worker process as the front sees it: its state, its channel, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import psutil

from mmserve_worker.channel import Channel, Kind

if TYPE_CHECKING:
    from mmserve.supervision.pool import Pool


class WorkerState(Enum):
    """Moved by `Worker`'s methods alone, in this order; any state may be followed by DEAD.

    STARTING ──► LOADING ──► IDLE ◄──► BUSY
                    │          │
                    └──────► STOPPING ──► DEAD
    """

    STARTING = "STARTING"
    LOADING = "LOADING"
    IDLE = "READY"
    BUSY = "BUSY"
    STOPPING = "UNLOADING"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by {_signal_name(self.signal)}"
        return f"ended with exit code {self.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Worker:
    """A worker of a pool. `held` is whatever batch the dispatcher has given to it."""

    def __init__(self, worker_id: int, pool: Pool, channel: Channel) -> None:
        self.id = worker_id
        self.pool = pool
        self.channel = channel
        self.state = WorkerState.STARTING
        self.pid = 0
        self.pidfd = -1
        self.started_at = time.time()
        self.answered = 0
        self.held: Any = None
        # It is to end as soon as it has finished what it holds.
        self.retiring = False
        # Its process has ended, and what it left behind is being read.
        self.ended = False

    def forked(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd = pid, pidfd
        self.channel.handed_over()

    def never_started(self) -> None:
        """There is no process, and there will be none."""
        self.state = WorkerState.DEAD
        self.channel.close()

    def load(self, model_key: int, description: Mapping[str, Any]) -> None:
        """Has the process load a model, as soon as there is a process: the frame waits for it in the channel."""
        payload = json.dumps(description).encode()
        self.channel.reserve(len(payload))[:] = payload
        self.channel.send(Kind.LOAD, model_key=model_key)
        self.state = WorkerState.LOADING

    def loaded(self) -> None:
        self.state = WorkerState.IDLE

    def occupy(self, held: Any) -> None:
        self.held = held
        self.state = WorkerState.BUSY

    def vacate(self, answered: int) -> None:
        self.held = None
        self.answered += answered
        self.state = WorkerState.IDLE

    def stop(self) -> None:
        """Asks the process to end. It finishes nothing: only an idle worker, or one that has failed, is asked."""
        self.channel.send(Kind.STOP)
        self.state = WorkerState.STOPPING

    def abort(self) -> None:
        """Ends a process whose work nobody waits for any more."""
        self.state = WorkerState.STOPPING
        self.kill()

    def kill(self) -> None:
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def memory(self) -> int:
        """Resident bytes, what is shared with the template included; 0 if the process has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.pid else 0
        except psutil.NoSuchProcess:
            return 0

    def reap(self) -> Exit:
        """Takes note of the end of a process that has ended, and ends what it has started and left behind."""
        # Its own process group, which cannot be anybody else's before its leader has been reaped.
        # There may be no other member, or no group yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        self.pidfd = -1
        self.state = WorkerState.DEAD
        self.channel.close()
        assert result is not None
        if result.si_code == os.CLD_EXITED:
            return Exit(result.si_status, None)
        return Exit(None, result.si_status)
