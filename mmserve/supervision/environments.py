"""The Python environments that models run in, and the template of each: the server's own, and those made for a
requirements.txt.

    take ──► known? ──► on the disk? ──► made by uv ──► template ──► forks workers ──► leave ──► idle for long: ended
                                             └──► failed: told to all who wait, tried again later

Models with the same requirements share one. Making one is nobody's request's path: requests wait in their queues, and
who gives up waiting does not end it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol

from mmserve.backoff import Backoff
from mmserve.errors import ModelFailed
from mmserve.models.requirements import Requirements
from mmserve.observability.events import EventLog
from mmserve.supervision import installing
from mmserve.supervision.environment_store import EnvironmentStore, Held
from mmserve.supervision.spawning import Interpreter
from mmserve.supervision.template import Template

logger = logging.getLogger("mmserve.supervision")

# Environments that are made at one time: most of it is unpacking, for which they share disk and CPU with workers.
_AT_ONCE = 2
# For requirements that could not be met: a thousand models may have them, each of which is tried again by itself.
_BACKOFF = Backoff(first=1.0, longest=60.0)
# Seconds for which one that nobody has asked for again is still told to have failed.
_REMEMBERED = 600.0


class Supply(Protocol):
    """Where workers' templates come from."""

    async def take(self, requirements: Requirements | None) -> Template: ...

    def leave(self, template: Template) -> None: ...


@dataclass(frozen=True, slots=True)
class Described:
    """An environment, for `GET /status`. `pid` and `modules` are its template's."""

    key: str
    state: str
    requirements: Sequence[str]
    workers: int
    pid: int
    modules: int


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str
    attempts: int
    retry_at: float


class _Environment:
    """One that models have asked for."""

    def __init__(self, requirements: Requirements) -> None:
        self.requirements = requirements
        # Workers, those that are to be included.
        self.users = 0
        self.held: Held | None = None
        self.template: Template | None = None
        self.opening: asyncio.Task[None] | None = None
        self.closing: asyncio.TimerHandle | None = None
        self.failure: _Failure | None = None
        # What its last template had imported: the next one begins with that.
        self.modules: Sequence[str] = ()

    def describe(self) -> Described:
        template = self.template
        state = "READY" if template is not None else "PENDING" if self.opening else "FAILED" if self.failure else "IDLE"
        pid, modules = (template.pid, len(template.modules)) if template is not None else (0, 0)
        return Described(self.requirements.key, state, self.requirements.shown, self.users, pid, modules)


class Environments:
    """`base` is the server's own. `make` gives the template of another interpreter, to preload those of `preload` that
    it has. One whose workers have all gone is ended after `idle_time` seconds."""

    def __init__(
        self,
        base: Template,
        store: EnvironmentStore,
        installer: installing.Installer,
        make: Callable[[Sequence[str], Interpreter], Template],
        log: EventLog,
        *,
        preload: Sequence[str],
        idle_time: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._base = base
        self._store = store
        self._installer = installer
        self._make = make
        self._log = log
        self._preload = preload
        self._idle_time = idle_time
        self._known: dict[str, _Environment] = {}
        self._by_template: dict[Template, _Environment] = {}
        self._making = asyncio.Semaphore(_AT_ONCE)
        self._forgetting: asyncio.Task[None] | None = None

    @property
    def pids(self) -> list[int]:
        """The templates' processes, 0 for each that is not ready."""
        return [self._base.pid, *(template.pid for template in self._by_template)]

    def start(self) -> None:
        self._base.start()

    async def take(self, requirements: Requirements | None) -> Template:
        """The template of what meets the requirements, for one worker. Raises ModelFailed where nothing does."""
        if requirements is None:
            return self._base
        environment = self._known.setdefault(requirements.key, _Environment(requirements))
        environment.users += 1
        try:
            if environment.template is None:
                if environment.opening is None:
                    environment.requirements = requirements
                    environment.opening = self._loop.create_task(self._open(environment))
                    environment.opening.add_done_callback(_look_at)
                await asyncio.shield(environment.opening)
        except BaseException:
            self._left(environment)
            raise
        if environment.closing is not None:
            environment.closing.cancel()
            environment.closing = None
        assert environment.template is not None
        return environment.template

    def leave(self, template: Template) -> None:
        """A worker of this template has gone."""
        environment = self._by_template.get(template)
        if environment is not None:
            self._left(environment)

    def describe(self) -> list[Described]:
        """All that models have asked for."""
        return [environment.describe() for environment in self._known.values()]

    async def stop(self) -> None:
        """Ends all templates and whatever is being made. Workers are not touched."""
        opening = [environment.opening for environment in self._known.values()]
        tasks = [task for task in (*opening, self._forgetting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for environment in list(self._by_template.values()):
            assert environment.template is not None
            environment.template.stop()
            self._close(environment)
        self._base.stop()

    def _left(self, environment: _Environment) -> None:
        environment.users -= 1
        if not environment.users and environment.template is not None:
            environment.closing = self._loop.call_later(self._idle_time, self._end, environment)

    def _end(self, environment: _Environment) -> None:
        assert environment.template is not None
        environment.modules = environment.template.modules
        environment.template.end()
        self._close(environment)

    def _close(self, environment: _Environment) -> None:
        template, held = environment.template, environment.held
        assert template is not None
        assert held is not None
        if environment.closing is not None:
            environment.closing.cancel()
        environment.closing = environment.template = environment.held = None
        del self._by_template[template]
        held.let_go()

    async def _open(self, environment: _Environment) -> None:
        key = environment.requirements.key
        try:
            environment.held = await asyncio.to_thread(self._store.open, key) or await self._made(environment)
            directory = environment.held.directory
            worker_path = await asyncio.to_thread(self._store.worker_path)
            preload = environment.modules or await asyncio.to_thread(_present, self._preload, directory)
        except OSError as error:
            if environment.held is not None:
                environment.held.let_go()
                environment.held = None
            message = f"The environment of requirements.txt cannot be made: {error.strerror or error}."
            raise self._failed(environment, message) from error
        finally:
            environment.opening = None
        environment.failure = None
        template = self._make(preload, Interpreter(installing.python(directory), worker_path))
        environment.template = template
        self._by_template[template] = environment
        template.start()
        if not environment.users:
            # Those who have waited for it have given up, and will be back.
            environment.closing = self._loop.call_later(self._idle_time, self._end, environment)

    async def _made(self, environment: _Environment) -> Held:
        failure = environment.failure
        if failure is not None and monotonic() < failure.retry_at:
            raise ModelFailed(installing.ERROR_TYPE, failure.message)
        requirements = environment.requirements
        async with self._making:
            began = monotonic()
            temporary = await asyncio.to_thread(self._store.temporary)
            try:
                await self._installer.install(requirements, temporary.directory)
                held = await asyncio.to_thread(self._store.adopt, temporary.directory, requirements.key)
            except ModelFailed as error:
                raise self._failed(environment, str(error)) from None
            finally:
                await asyncio.to_thread(temporary.give_up)
        seconds = round(monotonic() - began, 3)
        reason = ", ".join(requirements.shown)
        self._log.add("environment_built", reason=reason, level=logging.INFO, key=requirements.key, seconds=seconds)
        await self._evict()
        return held

    async def _evict(self) -> None:
        evicted = await asyncio.to_thread(self._store.evict)
        for key in evicted:
            removed = self._known.get(key)
            if removed is not None and removed.template is None and removed.opening is None:
                del self._known[key]
            self._log.add("environment_removed", reason="least recently used", level=logging.INFO, key=key)
        if evicted and (self._forgetting is None or self._forgetting.done()):
            # Nobody waits for it: it waits for every other uv, which may be at work for minutes.
            self._forgetting = self._loop.create_task(self._forget_downloads())

    async def _forget_downloads(self) -> None:
        try:
            await self._installer.forget_downloads()
        except (ModelFailed, OSError) as error:
            logger.warning("what uv has downloaded is not removed: %s", error)

    def _failed(self, environment: _Environment, message: str) -> ModelFailed:
        self._forget_failed()
        before = environment.failure
        attempts = 1 if before is None else before.attempts + 1
        environment.failure = _Failure(message, attempts, monotonic() + _BACKOFF.after(attempts))
        key = environment.requirements.key
        self._log.add("environment_failed", reason=message, level=logging.ERROR, key=key, attempts=attempts)
        return ModelFailed(installing.ERROR_TYPE, message)

    def _forget_failed(self) -> None:
        """Each version of a requirements.txt that cannot be met is one that there was: they would become ever more."""
        long_ago = monotonic() - _REMEMBERED
        for key, known in list(self._known.items()):
            failure = known.failure
            if not known.users and known.opening is None and failure is not None and failure.retry_at < long_ago:
                del self._known[key]


def _look_at(opening: asyncio.Task[None]) -> None:
    """Whoever has waited for it may have gone, and it has been noted how it went."""
    if not opening.cancelled():
        opening.exception()


def _present(modules: Iterable[str], environment: Path) -> list[str]:
    """Those of the modules that an environment has."""
    packages = installing.site_packages(environment)
    tops = {module: module.partition(".")[0] for module in modules}
    return [
        module
        for module, top in tops.items()
        if top in sys.stdlib_module_names or (packages / top).is_dir() or (packages / f"{top}.py").is_file()
    ]
