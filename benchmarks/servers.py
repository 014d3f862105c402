"""Starts our server, by its own command, and the reference; and ends them whatever happens meanwhile."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mmserve import runfile
from mmserve.config import Settings

TIMEOUT = 60.0
# Any free port; the run file, which is named for this address, says which it became.
_ANY_PORT = "http://127.0.0.1:0"
# In the environment of a server and of all that it starts, however deep: what it has left can be told by it.
# What begins with LC_ is passed on to workers.
MARKER = "LC_BENCHMARKED_MMSERVE"


class ServerError(Exception):
    """A server did not start, did not stop, or answered with an error. Says so in one line."""


class Address:
    """A server's listener, and single calls of it: not for load."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer, whatever they are."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        status, content = self.exchange(method, path, body)
        if status != 200:
            raise ServerError(f"{method} {path}: {status} {content.decode(errors='replace')}")
        return content


class MmServe:
    """A running mmserve."""

    def __init__(self, running: runfile.Running, marker: str) -> None:
        self.pid = running.pid
        self.marker = marker
        self.inference = _address(running.inference)
        self.management = _address(running.management)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = msgspec.json.decode(self.management.call("GET", "/status"))
        return answer

    def wait_for_template(self) -> None:
        """Returns when workers can be forked at once."""
        end = time.monotonic() + TIMEOUT
        while not self.status()["template"]["pid"]:
            if time.monotonic() > end:
                raise ServerError("the template is not ready")
            time.sleep(0.05)


def _address(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return Address(parts.hostname, parts.port)


@contextmanager
def mmserve(
    directory: Path, store: Path | str, environment: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[MmServe]:
    """`mmserve start`, and in the end `mmserve stop`. What it writes goes into `directory`."""
    # Out of the terminal's reach: Ctrl-C would end the command, and not the server that is just coming up.
    marker = secrets.token_hex(8)
    starting = _mmserve(start_command(directory, store, settings), marker, environment)
    try:
        file = run_file(directory)
        try:
            _finish(starting)
        except ServerError as error:
            raise ServerError(f"{error}\n{end_of(file.with_suffix('.log'))}") from None
        running = runfile.read(file)
        if running is None:
            raise ServerError("the server has ended right after its start")
        yield MmServe(running, marker)
    finally:
        with undisturbed():
            starting.wait()
            if starting.returncode == 0:
                _finish(_mmserve(["stop", "--force", *_where(directory)]))


def start_command(directory: Path, store: Path | str, settings: Mapping[str, Any]) -> list[str]:
    """The arguments of a start whose server writes into `directory` alone."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    if "state_dir" in Settings.__struct_fields__:
        flags.append(f"--state-dir={directory / 'state'}")
    return [
        *("start", *_where(directory)),
        *(f"--inference-address={_ANY_PORT}", f"--model-store={store}", f"--cache-dir={directory / 'cache'}"),
        *flags,
    ]


def run_file(directory: Path) -> Path:
    return runfile.path(str(directory / "run"), _ANY_PORT)


def _where(directory: Path) -> list[str]:
    return [f"--management-address={_ANY_PORT}", f"--runtime-dir={directory / 'run'}"]


@contextmanager
def reference(answer: bytes = b"{}") -> Iterator[Address]:
    """The server that ours is compared with. It answers with these bytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.reference", answer.decode()],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise ServerError("the reference does not start")
        yield Address("127.0.0.1", int(said))
    finally:
        with undisturbed(), process:
            process.terminate()


def _mmserve(
    arguments: list[str], marker: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mmserve", *arguments],
        env={**os.environ, MARKER: marker, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_of(log: Path) -> str:
    """The last lines of a log whose directory is about to be removed."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise ServerError(errors.strip())


def clean_up_when_told_to_end() -> None:
    """Makes SIGTERM what Ctrl-C is, and both work in the background, where a shell has them started with SIGINT
    ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Lets nobody's second Ctrl-C keep us from cleaning up."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
