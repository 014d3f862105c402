"""Both ways of HTTP understand the same requests in the same bytes, and answer none that was not sent as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import hostile, hostile_streams, models
from tests.servers import Server

_SEED = 66
_COUNT = 400
# So few are sent sooner than the benchmark's.
_SETTINGS = {"read_timeout": 0.8, "keepalive_timeout": 1.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hostile") / "store"
    models.make_store(directory, 3)
    return directory


def test_no_stream_is_understood_in_two_ways(serve_module: Callable[..., Server], store: Path) -> None:
    common = {"model_store": store, "preload": "sklearn.linear_model", **_SETTINGS}
    servers = [serve_module(http=http, **common) for http in ("lane", "aiohttp")]
    for server in servers:
        for path in (hostile_streams.ONE, hostile_streams.TWO):
            assert server.client.post(path.decode(), content=models.BODY).status_code == 200
    tried = list(itertools.islice(hostile_streams.streams(_SEED), _COUNT))
    found = hostile.differences([server.address for server in servers], tried)
    assert not found, "\n".join(found)
