"""What every test may use, and what every test must leave behind: nothing."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import models_for_tests as models
from tests.http.gates import Gate
from tests.servers import Server, processes_of, wait_until

if TYPE_CHECKING:
    from tests.s3 import S3

# Read by ONNX Runtime when a test imports it: it would open descriptors at times of its own. No worker inherits it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Where a script has started the tests in the background, it is ignored, and would be by all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_SHARED = pytest.StashKey[set[str]]()
# The modules whose tests are about what both ways of HTTP have to do alike: each of their tests with a server runs with
# either.
_BOTH_WAYS = {
    "test_bodies",
    "test_connections",
    "test_counted_streams",
    "test_drain",
    "test_inference",
    "test_overload",
    "test_plain",
    "test_sagemaker",
    "test_streaming",
    "test_trailers",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "http" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in _BOTH_WAYS:
        metafunc.parametrize("http", ["lane", "aiohttp"], indirect=True, scope="module")


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def _shared_markers(config: pytest.Config) -> set[str]:
    """The markers of the servers that outlive a test."""
    return config.stash.setdefault(_SHARED, set())


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind_by_all() -> Iterator[None]:
    yield
    wait_until(lambda: not processes_of(""), "the end of every process of every server")


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a process of a server, a descriptor or shared memory behind."""
    # What outlives a test is set up before the count.
    if "shared_server" in request.fixturenames:
        request.getfixturevalue("shared_server")
    shared = _shared_markers(request.config)
    descriptors = _descriptors()
    segments = set(os.listdir("/dev/shm"))
    yield

    def others() -> set[int]:
        return set(processes_of("")) - {pid for marker in shared for pid in processes_of(marker)}

    wait_until(lambda: not others(), "the end of the processes that this test has started")
    assert set(os.listdir("/dev/shm")) <= segments

    def left() -> dict[int, str]:
        # A client's kept-alive connections come and go with the shared server.
        return {fd: to for fd, to in _descriptors().items() if fd not in descriptors and "socket:" not in to}

    def gone() -> bool:
        # An S3 in this process has one for a moment, whenever a server that outlives the test lists it. Where the
        # server hangs up in that moment, Werkzeug leaves it to the collector.
        if left():
            gc.collect()
        return not left()

    wait_until(gone, f"the end of the descriptors that this test has opened: {left()}")


@pytest.fixture(scope="module")
def http(request: pytest.FixtureRequest) -> str:
    """The way of HTTP that the servers of a test have, unless it says another."""
    return str(getattr(request, "param", "lane"))


@pytest.fixture
def serve(tmp_path: Path, http: str) -> Iterator[Callable[..., Server]]:
    """Starts servers, which are stopped at the test's end."""
    servers: list[Server] = []

    def start(**settings: Any) -> Server:
        servers.append(Server(tmp_path, **{"http": http, **settings}))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="session")
def shared_servers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Server]]:
    """What makes `shared_server`, of each way of HTTP one."""
    directory = tmp_path_factory.mktemp("shared")
    store = directory / "store"
    store.mkdir()
    with warnings.catch_warnings():
        models.write_archive(store / "linear.tar.gz", models.linear())
        models.write_archive(store / "classifier.tar.gz", models.classifier())
        models.write_archive(store / "named.tar.gz", models.named())
        models.write_model(store / "forest", models.forest())
        models.write_model(store / "identity", models.identity())
    servers: dict[str, Server] = {}

    def share(http: str) -> Server:
        if http not in servers:
            servers[http] = Server(tmp_path_factory.mktemp(http), model_store=store, http=http)
            _shared_markers(request.config).add(servers[http].marker)
        return servers[http]

    yield share
    for server in servers.values():
        server.end()


@pytest.fixture(scope="module")
def shared_server(shared_servers: Callable[[str], Server], http: str) -> Server:
    """One server with the usual models, for tests that change nothing about it: `linear` (2x + 1), `named` (a - b),
    `classifier`, `forest`, `identity`."""
    return shared_servers(http)


@pytest.fixture(scope="module")
def serve_module(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, http: str
) -> Iterator[Callable[..., Server]]:
    """As `serve`, but for fixtures that a module's tests share: pytest sets these up before a test's own count."""
    servers: list[Server] = []

    def start(**settings: Any) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server"), **{"http": http, **settings}))
        _shared_markers(request.config).add(servers[-1].marker)
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """An S3 with an empty bucket, for the tests of one module."""
    # Half a second that only the modules which use it pay for.
    from tests.s3 import S3

    with S3() as s3:
        yield s3


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Lets the requests of the models written with it go when the test says so."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For callers who wait."""
    with ThreadPoolExecutor(32) as threads:
        yield threads


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty model store."""
    directory = tmp_path / "store"
    directory.mkdir()
    return directory
