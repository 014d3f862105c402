"""One worker process as the front sees it: its state, its channel, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from mmserve.models.model import Content
from mmserve.supervision import processes
from mmserve.supervision.growth import Growth
from mmserve_worker.channel import Channel, Kind

if TYPE_CHECKING:
    from mmserve.supervision.pool import Pool
    from mmserve.supervision.template import Template


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


@dataclass(slots=True)
class WorkerMemory:
    """What a worker holds that would be free without it, in bytes, as far as it is known; see memory.py."""

    held: int = 0
    # Resident right after the fork, when all of it was the template's.
    resident_at_fork: int = 0
    # Pages of the template's that it has written to, if that was measured, and after how many answers.
    copied: int | None = None
    measured_after: int = -1
    growth: Growth = field(default_factory=Growth)


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
    """A worker of a pool. `held` is whatever batch the dispatcher has given to it. Without `content` it is given what
    its model's source says when it comes up."""

    def __init__(self, worker_id: int, pool: Pool, channel: Channel, reason: str, content: Content | None) -> None:
        self.id = worker_id
        self.pool = pool
        self.channel = channel
        self.start_reason = reason
        self.content = content
        # Of the environment that it runs in, once there is one.
        self.template: Template | None = None
        self.state = WorkerState.STARTING
        self.pid = 0
        self.pidfd = -1
        self.started_at = time.time()
        # Monotonic: when it was asked for, when there was a process, when it was given its batch, when it became idle.
        self.asked_at = time.monotonic()
        self.forked_at = 0.0
        self.sent_at = 0.0
        self.idle_since = 0.0
        self.answered = 0
        # Seconds that its handler took for what it has answered.
        self.busy_seconds = 0.0
        self.held: Any = None
        self.memory = WorkerMemory()
        # It is counted as memory that will be free soon.
        self.leaving = False
        # Why it is ended, once it is.
        self.stop_reason = ""
        self._cpu_before = 0.0
        # It is to end as soon as it has finished what it holds.
        self.retiring = False
        # Its process has ended, and what it left behind is being read.
        self.ended = False

    @property
    def coming_up(self) -> bool:
        return self.state in (WorkerState.STARTING, WorkerState.LOADING) and not self.retiring

    @property
    def is_trial(self) -> bool:
        """It tries out newer files of its model."""
        return self.content is not None and self.content is self.pool.candidate

    @property
    def is_outdated(self) -> bool:
        """Its model has newer files than those that it has loaded."""
        mine, now = self.content, self.pool.model.content
        return mine is not None and now is not None and mine.version != now.version

    @property
    def is_next(self) -> bool:
        """It comes up with the newer files that its model has taken over."""
        return self.coming_up and not self.is_outdated and self.pool.candidate is None

    @property
    def is_going(self) -> bool:
        return self.retiring or self.state in (WorkerState.STOPPING, WorkerState.DEAD)

    def forked(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd, self.forked_at = pid, pidfd, time.monotonic()
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
        self._cpu_before = processes.cpu_seconds(self.pid) or 0.0
        self.state = WorkerState.IDLE

    def occupy(self, held: Any, now: float) -> None:
        self.held = held
        self.sent_at = now
        self.state = WorkerState.BUSY

    def vacate(self, answered: int, seconds: float) -> None:
        """It has answered so many requests, for which its handler took so long."""
        self.held = None
        self.answered += answered
        self.busy_seconds += seconds
        if self.state is not WorkerState.STOPPING:
            self.state = WorkerState.IDLE

    def running_for(self, now: float) -> float:
        """Seconds since it was given what it has not answered yet."""
        return now - self.sent_at if self.state is WorkerState.BUSY else 0.0

    def cpu_seconds(self) -> float | None:
        """What it has run or wanted to run since it was loaded, or None if the system does not say."""
        seconds = processes.cpu_seconds(self.pid)
        return None if seconds is None else seconds - self._cpu_before

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

    def dump(self) -> None:
        """Has the process write its stacks to the log and end: faulthandler's answer to SIGABRT."""
        self.state = WorkerState.STOPPING
        if self.pidfd >= 0:
            signal.pidfd_send_signal(self.pidfd, signal.SIGABRT)

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
