"""The template of one Python environment: asks it for workers, renews it with what was learned, replaces it if it dies.

Requests for workers wait here, not in a process's socket, so that a next generation or a replacement can take them
over. There is one current generation, and at most one candidate that is importing what was learned and takes over
once it is ready. Workers belong to the front and outlive the generation that forked them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence

from mmserve.errors import ModelFailed
from mmserve.observability.events import EventLog
from mmserve.supervision.generation import Fork, Forked, Generation
from mmserve.supervision.spawning import Interpreter, spawn
from mmserve_worker.channel import ChannelFiles

logger = logging.getLogger("mmserve.supervision")

# Forks asked for and not yet answered. The template does one at a time; a few keep it busy.
_MAX_ASKED = 4
# Modules are collected for this long before a next generation is made, in seconds: models come in groups.
_LEARNING_DELAY = 0.2
# A template that dies is started again at once, and after this many seconds if it has forked nothing since the last
# time. After so many deaths in a row those who wait for workers are told, and what was learned is not trusted.
_RESTART_DELAY = 0.5
_PATIENCE = 3
# A module whose import ends the process twice is not imported again; once may have been anything.
_MOST_DEATHS_OF_A_MODULE = 2


class Template:
    """`environment` names variables that workers get of the server's environment beside the usual ones.

    `first` is the control socket of a template that was spawned already, and `interpreter` another than the server's.
    """

    def __init__(
        self,
        preload: Sequence[str],
        *,
        log: EventLog,
        nice: int,
        log_level: str,
        environment: Collection[str] = (),
        first: socket.socket | None = None,
        interpreter: Interpreter | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._configured = preload
        self._preload = list(preload)
        self._log = log
        self._nice = nice
        self._log_level = log_level
        self._environment = environment
        self._waiting: deque[Fork] = deque()
        self._current: Generation | None = None
        self._candidate: Generation | None = None
        self._retired: set[Generation] = set()
        # Learned and not yet imported by any generation; a dict for its order.
        self._learned: dict[str, None] = {}
        self._unfit: set[str] = set()
        self._died_of: Counter[str] = Counter()
        self._learning: asyncio.TimerHandle | None = None
        self._restarting: asyncio.TimerHandle | None = None
        # Deaths since a worker was last forked.
        self._deaths = 0
        self._first = first
        self._interpreter = interpreter
        self._stopped = False

    @property
    def pid(self) -> int:
        """The process that forks workers now, or 0 while none is ready."""
        return self._current.pid if self._current is not None and self._current.ready else 0

    @property
    def modules(self) -> Sequence[str]:
        """What the current generation was told to import."""
        return self._current.modules if self._current is not None else ()

    def start(self) -> None:
        self._restarting = None
        if self._current is not None:
            # A candidate has taken over meanwhile.
            return
        try:
            first, self._first = self._first, None
            control = first or spawn(
                self._preload,
                log_level=self._log_level,
                environment=self._environment,
                interpreter=self._interpreter,
            )
            self._current = Generation(control, self._preload, self)
        except OSError as error:
            logger.error("the template cannot be started: %s", error)
            self._deaths += 1
            if self._deaths >= _PATIENCE:
                self._give_up_waiting()
            self._restarting = self._loop.call_later(_RESTART_DELAY, self.start)

    async def fork(self, worker_id: int, files: ChannelFiles) -> Forked:
        """A new worker process on the channel made of `files`. Raises ModelFailed if there can be none."""
        fork = Fork(worker_id, files, self._loop.create_future())
        self._waiting.append(fork)
        self._ask()
        return await fork.done

    def learn(self, modules: Iterable[str]) -> None:
        """Has these modules imported before later forks."""
        candidate = self._candidate.modules if self._candidate is not None else ()
        known = {*self._preload, *candidate, *self._unfit}
        self._learned.update(dict.fromkeys(module for module in modules if module not in known))
        if self._learned and self._learning is None and not self._stopped:
            self._learning = self._loop.call_later(_LEARNING_DELAY, self._renew)

    def stop(self) -> None:
        """Ends every generation and waits for it. Workers are not touched."""
        self._stopped = True
        for timer in (self._learning, self._restarting):
            if timer is not None:
                timer.cancel()
        for generation in (self._current, self._candidate, *self._retired):
            if generation is not None:
                generation.kill()

    def end(self) -> None:
        """As `stop`, for one that no worker is wanted of: it ends by itself, and nobody waits for it."""
        current = self._current
        if current is not None and current.ready and self._candidate is None and not current.asked:
            self._current = None
            current.close()
        self.stop()

    def generation_ready(self, generation: Generation) -> None:
        if generation is self._candidate:
            modules = len(generation.modules)
            self._log.add("template_renewed", reason="it preloads more", level=logging.INFO, modules=modules)
            self._candidate = None
            self._preload = list(generation.modules)
            retired, self._current = self._current, generation
            if retired is not None:
                self._retire(retired)
        self.learn(())
        self._ask()

    def generation_forked(self, generation: Generation, worker_id: int, forked: Forked | str) -> None:
        fork = generation.asked.pop(worker_id)
        self._deaths = 0
        if isinstance(forked, str):
            if not fork.done.done():
                fork.done.set_exception(ModelFailed("WorkerStartException", forked))
        elif fork.done.done():
            _discard(forked)
        else:
            fork.done.set_result(forked)
        if generation in self._retired:
            self._retire(generation)
        self._ask()

    def generation_ended(self, generation: Generation) -> None:
        if generation is self._candidate:
            self._candidate = None
            self._learned.update(dict.fromkeys(generation.modules[len(self._preload) :]))
            self._blame(generation)
            self.learn(())
            return
        self._retired.discard(generation)
        # Asked of another, on the same channels: no worker has them, since one that lives has told of itself before it
        # let go of the socket.
        self._waiting.extendleft(reversed(generation.asked.values()))
        generation.asked.clear()
        if generation is self._current and not self._stopped:
            self._current = None
            self._replace(generation)

    def _ask(self) -> None:
        generation = self._current
        while generation is not None and generation.ready and self._waiting and len(generation.asked) < _MAX_ASKED:
            fork = self._waiting.popleft()
            if fork.done.done():
                continue
            try:
                generation.fork(fork, self._nice)
            except OSError:
                # It has just died: its end is about to be read, and a replacement will be asked.
                self._waiting.appendleft(fork)
                return

    def _renew(self) -> None:
        self._learning = None
        current = self._current
        if current is None or not current.ready or self._candidate is not None:
            # Tried again when the one that is being made is ready.
            return
        try:
            self._candidate = current.successor(list(self._learned))
        except OSError:
            return
        self._learned.clear()

    def _retire(self, generation: Generation) -> None:
        """Lets a generation go as soon as it has answered all it was asked."""
        if generation.asked:
            self._retired.add(generation)
        else:
            self._retired.discard(generation)
            generation.close()

    def _blame(self, generation: Generation) -> None:
        """What ends a template, or starts threads in it, is not preloaded again."""
        module = generation.importing
        if generation.ready or not module:
            return
        self._died_of[module] += 1
        if generation.unfit or self._died_of[module] >= _MOST_DEATHS_OF_A_MODULE:
            how = "starts threads" if generation.unfit else "ends the process"
            logger.warning("not preloaded, because importing it %s: %s", how, module)
            self._unfit.add(module)
            self._learned.pop(module, None)
            if module in self._preload:
                self._preload.remove(module)

    def _replace(self, generation: Generation) -> None:
        self._log.add("template_died", reason="a new one is being started", level=logging.ERROR, pid=generation.pid)
        self._blame(generation)
        self._deaths += 1
        if self._deaths >= _PATIENCE:
            self._preload = [module for module in self._configured if module not in self._unfit]
            self._learned.clear()
            self._give_up_waiting()
        self._restarting = self._loop.call_later(0.0 if self._deaths == 1 else _RESTART_DELAY, self.start)

    def _give_up_waiting(self) -> None:
        for fork in self._waiting:
            if not fork.done.done():
                message = "The template process dies again and again; the server's log says why."
                fork.done.set_exception(ModelFailed("WorkerStartException", message))
        self._waiting.clear()


def _discard(forked: Forked) -> None:
    """Ends a worker that nobody waits for any more."""
    signal.pidfd_send_signal(forked.pidfd, signal.SIGKILL)
    os.waitid(os.P_PIDFD, forked.pidfd, os.WEXITED)
    os.close(forked.pidfd)
