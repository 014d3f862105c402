"""One template process as the front sees it: its control socket, what it was asked, its end.

Every generation is a child of the front: the first one was spawned by it, the others are forks of their predecessor
that the kernel gave to the front (see `mmserve_worker.process.fork_sibling`).
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mmserve_worker import control
from mmserve_worker.channel import ChannelFiles


class Forked(NamedTuple):
    pid: int
    pidfd: int


class Fork(NamedTuple):
    """A request for a worker process on the channel made of `files`."""

    worker_id: int
    files: ChannelFiles
    done: asyncio.Future[Forked]


class Owner(Protocol):
    """Who is told what a generation says."""

    def generation_ready(self, generation: Generation) -> None: ...

    def generation_forked(self, generation: Generation, worker_id: int, forked: Forked | str) -> None: ...

    def generation_ended(self, generation: Generation) -> None: ...


class Generation:
    def __init__(self, control_socket: socket.socket, modules: Sequence[str], owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control_socket
        self._control.setblocking(False)
        self._owner = owner
        self._pidfd = -1
        self.modules = modules
        self.pid = 0
        self.asked: dict[int, Fork] = {}
        self.ready = False
        self.importing = ""
        self.unfit = False
        self._loop.add_reader(control_socket.fileno(), self._read)

    def fork(self, fork: Fork, nice: int) -> None:
        """Asks for a worker. Raises OSError if the process has died."""
        control.send(self._control, {"fork": fork.worker_id, "nice": nice}, fork.files)
        self.asked[fork.worker_id] = fork

    def successor(self, modules: Sequence[str]) -> Generation:
        """A next generation that imports `modules` before it is ready. Raises OSError if this process has died."""
        ours, theirs = control.socket_pair()
        with theirs:
            try:
                control.send(self._control, {"renew": list(modules)}, [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return Generation(ours, [*self.modules, *modules], self._owner)

    def close(self) -> None:
        """Lets go of the process: it ends by itself when it next looks at its socket."""
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()

    def kill(self) -> None:
        """Ends the process at once and waits for its end."""
        self.close()
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            # The event loop has made the descriptor one that does not block. And select() knows none above 1023.
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll()
            self._reap()

    def _read(self) -> None:
        try:
            received = control.receive(self._control)
        except BlockingIOError:
            return
        if received is None:
            self.close()
            self._owner.generation_ended(self)
            return
        message, _ = received
        if "forked" in message:
            self._forked(message["forked"], message["pid"])
        elif "failed" in message:
            self._owner.generation_forked(self, message["failed"], message["error"])
        elif "pid" in message:
            self.pid = message["pid"]
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._reap)
        elif "importing" in message:
            self.importing = message["importing"]
        elif "unfit" in message:
            self.unfit = True
        else:
            self.ready = True
            self._owner.generation_ready(self)

    def _forked(self, worker_id: int, pid: int) -> None:
        """Told twice, by the worker and by the template, lest one of them dies before it can."""
        if worker_id not in self.asked:
            return
        # The pid cannot be another's: the process is a child of this one, which has not reaped it.
        try:
            forked: Forked | str = Forked(pid, os.pidfd_open(pid))
        except OSError as error:
            # Out of descriptors: without one there is no worker.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            forked = f"no descriptor for a worker: {error.strerror}"
        self._owner.generation_forked(self, worker_id, forked)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._pidfd = -1
