"""What several callers ask of one model at the same time, and what holds then, here and on the disk.

No process is started: how a model is prepared, and when a file is written, is the tests' to say.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mmserve.errors import Conflict, InsufficientMemory, ModelFailed
from mmserve.models.cached import CachedContents
from mmserve.models.model import Content, Model
from mmserve.models.registrations import Record, Registrations
from mmserve.models.registry import Registry
from mmserve.models.s3 import S3, S3Options
from mmserve.models.s3_objects import Objects
from mmserve.models.s3_records import CachedObjects
from mmserve.models.settings import ModelSettings
from mmserve.models.store import DirectoryStore
from mmserve.observability.events import EventLog
from mmserve.observability.stats import ModelStats
from mmserve.operations import Operations
from mmserve.scheduling.dispatcher import Dispatcher
from mmserve.scheduling.request import Request
from mmserve.supervision.environments import Environments
from mmserve.supervision.limits import Limits
from mmserve.supervision.preparation import Preparation
from mmserve.supervision.supervisor import Supervisor
from tests.defaults import DEFAULTS
from tests.servers import DEADLINE, wait_until

GIB = 1 << 30


class _NoEnvironments:
    """No model gets as far as to need one."""

    pids = (0,)

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class _Gate:
    """What is done in threads waits for it where it is shut."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.reached = threading.Event()

    def shut(self) -> None:
        self._open.clear()
        self.reached.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._open.wait(DEADLINE)


class _Slow(Registrations):
    """Writes when the gate is open. With `broken` nothing can be removed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.gate = _Gate()
        self.broken = False

    def save(self, record: Record) -> None:
        self.gate.pass_through()
        super().save(record)

    def remove(self, name: str) -> None:
        self.gate.pass_through()
        if self.broken:
            raise OSError("no disk any more")
        super().remove(name)


class Host:
    """A server's operations without its processes. No model loads: `preparing` says when that turns out."""

    def __init__(self, directory: Path, memory_budget: int = GIB) -> None:
        store = directory / "store"
        (directory / "cache").mkdir()
        for name in ("stored", "other"):
            (store / name).mkdir(parents=True)
        self.preparing = _Gate()
        self.registrations = _Slow(directory / "state")
        self.registry = Registry(
            DirectoryStore(str(store)), Objects(S3(S3Options(), 1.0), CachedObjects(directory), 1.0)
        )
        self.supervisor = Supervisor(
            cast(Environments, _NoEnvironments()),
            Preparation(self._prepare, CachedContents(directory / "cache"), EventLog()),
            DEFAULTS,
            log=EventLog(),
            limits=Limits(),
            memory_budget=memory_budget,
            channel_capacity=4096,
            rollover_interval=60.0,
        )
        stats = ModelStats()
        self.dispatcher = Dispatcher(self.supervisor, capacity=4096, slots=2, stats_of=lambda _: stats)
        self.operations = Operations(
            self.registry, self.registrations, self.dispatcher, self.supervisor, EventLog(), drain_timeout=DEADLINE
        )

    def _prepare(self, model: Model) -> Content:
        self.preparing.pass_through()
        raise ModelFailed("ValueError", f"{model.name} does not load")

    async def register(self, *, load: bool = True, wait: bool = True) -> Model:
        return await self.operations.register("stored", None, ModelSettings(), load=load, wait=wait)

    async def ask(self) -> Any:
        """A request for the store's model, as the inference API makes it."""
        model = await self.registry.find("stored")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = Request(b"", "", "", "", {}, asyncio.get_running_loop().time() + DEADLINE, future, 0)
        self.dispatcher.submit(self.dispatcher.queue(model), request)
        return await future

    def saved(self) -> list[Record]:
        return self.registrations.load()


def run(tmp_path: Path, test: Callable[[Host], Awaitable[None]], **settings: Any) -> None:
    async def within() -> None:
        host = Host(tmp_path, **settings)
        host.supervisor.start(host.dispatcher)
        try:
            async with asyncio.timeout(DEADLINE):
                await test(host)
        finally:
            for gate in (host.preparing, host.registrations.gate):
                gate.open()
            await host.supervisor.stop()

    asyncio.run(within())


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)


async def reached(gate: _Gate) -> None:
    await until(gate.reached.is_set, "a gate to be reached")


@pytest.mark.parametrize("known", [True, False])
def test_who_asks_for_a_model_of_the_store_while_it_is_registered_is_answered(tmp_path: Path, known: bool) -> None:
    async def test(host: Host) -> None:
        if known:
            await host.registry.find("stored")
        host.registrations.gate.shut()
        host.preparing.shut()
        registering = asyncio.create_task(host.register(load=False))
        await reached(host.registrations.gate)
        asking = asyncio.create_task(host.ask())
        await reached(host.preparing)
        host.registrations.gate.open()
        model = await registering
        assert host.registry.get("stored") is model
        host.preparing.open()
        with pytest.raises(ModelFailed, match="does not load"):
            await asking
        await until(lambda: not host.dispatcher.queues, "the end of what the store's model had")

    run(tmp_path, test)


def test_what_is_being_written_holds_although_its_caller_has_gone(tmp_path: Path) -> None:
    async def interrupt(host: Host, work: Awaitable[Any]) -> None:
        host.registrations.gate.shut()
        task = asyncio.ensure_future(work)
        await reached(host.registrations.gate)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        host.registrations.gate.open()
        # One at a time: this one comes after it.
        await host.operations.scale("other", ModelSettings(weight=1.0), wait=False)

    async def test(host: Host) -> None:
        await interrupt(host, host.register(load=False))
        model = host.registry.get("stored")
        assert model is not None
        assert model.registered
        await interrupt(host, host.operations.scale("stored", ModelSettings(weight=2.0), wait=False))
        assert model.scaled_to == ModelSettings(weight=2.0)
        other = Record("other", scaled_to={"weight": 1.0})
        assert host.saved() == [other, Record("stored", model.source.url, scaled_to={"weight": 2.0})]
        await interrupt(host, host.operations.unregister("stored"))
        assert host.registry.get("stored") is None
        assert host.saved() == [other, Record("stored", withdrawn=True)]

    run(tmp_path, test)


def test_a_registration_that_fails_takes_back_none_but_its_own(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        host.preparing.shut()
        first = asyncio.create_task(host.register())
        await reached(host.preparing)
        unregistering = asyncio.create_task(host.operations.unregister("stored"))
        await until(lambda: host.registry.is_withdrawn("stored"), "the start of the deletion")
        second = await host.register(load=False)
        host.preparing.open()
        with pytest.raises((Conflict, ModelFailed)):
            await first
        await unregistering
        assert host.registry.get("stored") is second
        assert host.saved() == [Record("stored", second.source.url)]

    run(tmp_path, test)


def test_after_a_registration_that_failed_the_stores_model_is_as_it_was(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        await host.operations.scale("stored", ModelSettings(weight=2.0), wait=False)
        await host.operations.unregister("other")
        before = host.saved()
        assert len(before) == 2
        for name in ("stored", "other"):
            with pytest.raises(ModelFailed, match="does not load"):
                await host.operations.register(name, None, ModelSettings(weight=9.0), load=True, wait=True)
        assert host.saved() == before
        stored = host.registry.get("stored")
        assert stored is not None
        assert not stored.registered
        assert stored.scaled_to == ModelSettings(weight=2.0)
        assert host.registry.get("other") is None
        assert host.registry.is_withdrawn("other")

    run(tmp_path, test)


def test_a_registration_that_cannot_be_taken_back_on_the_disk_is_taken_back_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(host: Host) -> None:
        host.registrations.broken = True
        with pytest.raises(ModelFailed, match="does not load"):
            await host.register()
        assert host.registry.get("stored") is None
        assert host.dispatcher.queues == []

    run(tmp_path, test)
    assert "model stored: its registration has failed" in caplog.text
    assert "no disk any more" in caplog.text


def test_who_waits_for_a_model_that_is_unregistered_before_it_has_a_worker_is_told(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        registering = asyncio.create_task(host.register())
        await until(lambda: host.registry.get("stored") is not None, "the registration")
        await host.operations.unregister("stored")
        with pytest.raises(Conflict, match="unregistered meanwhile"):
            await registering

    run(tmp_path, test, memory_budget=1)


def test_a_scaling_that_there_is_no_memory_for_holds_and_is_refused(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        with pytest.raises(InsufficientMemory, match="What was asked holds"):
            await host.operations.scale("stored", ModelSettings(min_workers=1), wait=True)
        assert host.saved() == [Record("stored", scaled_to={"min_workers": 1})]
        assert (await host.operations.describe("stored")).pool.settings.min_workers == 1

    run(tmp_path, test, memory_budget=1)
