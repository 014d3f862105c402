"""When environments are made, told to have failed, and removed: with an installer that does what a test says."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from mmserve.errors import ModelFailed
from mmserve.models.requirements import Requirements
from mmserve.observability.events import EventLog
from mmserve.supervision import environments as environments_module
from mmserve.supervision.environment_store import EnvironmentStore
from mmserve.supervision.environments import Environments
from mmserve.supervision.installing import Installer
from mmserve.supervision.template import Template
from tests.servers import wait_until
from tests.supervision.environments import fill, room_for

KEYS = [f"{number:032x}" for number in range(3)]


class _Template:
    """A template without a process."""

    pid = 0
    modules = ("learned",)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def end(self) -> None: ...


class _Installer:
    """Makes what is nothing but a file, as soon as `gate` is open, or raises `error`."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ...]] = []
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.forgetting = asyncio.Event()
        for event in (self.gate, self.forgetting):
            event.set()
        self.error: Exception | None = None

    async def install(self, requirements: Requirements, directory: Path) -> None:
        self.made.append(requirements.lines)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        fill(directory)

    async def forget_downloads(self) -> None:
        await self.forgetting.wait()


class Host:
    def __init__(self, directory: Path, most: int) -> None:
        self.directory = directory
        self.installer = _Installer()
        self.log = EventLog()
        self.base = cast(Template, _Template())
        # What each template was told to import.
        self.preloaded: list[Sequence[str]] = []
        self.environments = Environments(
            self.base,
            EnvironmentStore(directory, room_for(most)),
            cast(Installer, self.installer),
            lambda preload, interpreter: self._template(preload),
            self.log,
            preload=(),
            idle_time=0.0,
        )

    def _template(self, preload: Sequence[str]) -> Template:
        self.preloaded.append(preload)
        return cast(Template, _Template())

    async def take(self, number: int) -> Template:
        return await self.environments.take(Requirements(KEYS[number], ("tiny",), (f"tiny=={number}",), None))

    def states(self) -> list[str]:
        return [described.state for described in self.environments.describe()]

    def told(self, kind: str) -> list[str]:
        return [str(event.details["key"]) for event in self.log.after(0) if event.kind == kind]

    def entries(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory) if not name.startswith("worker-"))


def run(directory: Path, test: Callable[[Host], Awaitable[None]], *, most: int = 2) -> None:
    async def main() -> None:
        host = Host(directory / "environments", most)
        try:
            await asyncio.wait_for(test(host), 20)
        finally:
            await host.environments.stop()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, "what a test waits for")


def test_without_requirements_it_is_the_servers_own(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        assert await host.environments.take(None) is host.base
        host.environments.leave(host.base)
        assert host.environments.describe() == []

    run(tmp_path, test)


def test_a_hundred_who_need_the_same_have_it_made_once(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        templates = await asyncio.gather(*(host.take(1) for _ in range(100)))
        assert len(set(templates)) == 1
        assert host.installer.made == [("tiny==1",)]
        assert host.told("environment_built") == [KEYS[1]]

    run(tmp_path, test)


def test_no_more_than_two_are_made_at_one_time(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        host.installer.gate.clear()
        asked = [asyncio.create_task(host.take(number)) for number in range(3)]
        await until(lambda: host.installer.at_once == 2)
        host.installer.gate.set()
        await asyncio.gather(*asked)
        assert host.installer.most_at_once == 2
        assert len(host.installer.made) == 3

    run(tmp_path, test, most=3)


def test_whoever_gives_up_ends_nothing(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        host.installer.gate.clear()
        asked = asyncio.create_task(host.take(1))
        await until(lambda: host.installer.at_once == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert host.states() == ["PENDING"]
        host.installer.gate.set()
        # Nobody uses it, so its template ends, and the next who asks has it without any making.
        await until(lambda: host.states() == ["IDLE"])
        await host.take(1)
        assert len(host.installer.made) == 1

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModelFailed("EnvironmentFailedException", "uv says no"), "uv says no"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
    ],
)
def test_a_failure_is_told_to_all_and_tried_again_only_later(
    tmp_path: Path, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(host: Host) -> None:
        now = 100.0
        monkeypatch.setattr(environments_module, "monotonic", lambda: now)
        host.installer.error = error
        for _ in range(3):
            with pytest.raises(ModelFailed, match=said):
                await host.take(1)
        assert len(host.installer.made) == 1
        assert host.told("environment_failed") == [KEYS[1]]
        assert host.entries() == []
        assert host.states() == ["FAILED"]
        now, host.installer.error = 101.0, None
        await host.take(1)
        assert host.states() == ["READY"]

    run(tmp_path, test)


def test_the_least_recently_used_is_removed_and_made_anew_when_it_is_asked_for(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        for number in range(2):
            host.environments.leave(await host.take(number))
            await until(lambda: host.states()[-1] == "IDLE")
        held = await host.take(0)
        await host.take(2)
        assert host.told("environment_removed") == [KEYS[1]]
        assert host.entries() == [KEYS[0], KEYS[2]]
        await host.take(1)
        assert len(host.installer.made) == 4
        # Too many, but all of them are in use.
        assert host.entries() == KEYS
        host.environments.leave(held)

    run(tmp_path, test)


def test_nobody_waits_until_downloads_are_removed(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        host.installer.forgetting.clear()
        for number in range(3):
            host.environments.leave(await host.take(number))
            await until(lambda: host.states()[-1] == "IDLE")
        assert host.entries() == [KEYS[2]]

    run(tmp_path, test, most=1)


def test_a_template_begins_with_what_the_one_before_has_learned(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        for _ in range(2):
            host.environments.leave(await host.take(1))
            await until(lambda: host.states() == ["IDLE"])
        assert host.preloaded == [[], ("learned",)]

    run(tmp_path, test)


def test_failures_of_long_ago_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(host: Host) -> None:
        now = 100.0
        monkeypatch.setattr(environments_module, "monotonic", lambda: now)
        host.installer.error = ModelFailed("EnvironmentFailedException", "uv says no")
        for number in range(3):
            with pytest.raises(ModelFailed):
                await host.take(number)
            now += 400.0
        assert [described.key for described in host.environments.describe()] == KEYS[1:]

    run(tmp_path, test)


def test_credentials_of_an_index_are_not_shown(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        lines = ("--index-url https://user:secret@example.org/simple", "tiny==1")
        await host.environments.take(Requirements(KEYS[0], ("tiny==1",), lines, None))
        shown = ("--index-url https://***@example.org/simple", "tiny==1")
        assert [described.requirements for described in host.environments.describe()] == [shown]
        assert [event.reason for event in host.log.after(0) if event.kind == "environment_built"] == [", ".join(shown)]
        assert host.installer.made == [lines]

    run(tmp_path, test)


def test_what_is_being_made_when_the_server_stops_is_nowhere(tmp_path: Path) -> None:
    async def test(host: Host) -> None:
        host.installer.gate.clear()
        asked = asyncio.create_task(host.take(1))
        await until(lambda: host.installer.at_once == 1)
        await host.environments.stop()
        await asyncio.gather(asked, return_exceptions=True)
        assert host.entries() == []

    run(tmp_path, test)
