"""A running server tells Prometheus what it did, in the format that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.observability.scraped import OPEN_METRICS, TEXT, scrape
from tests.servers import LIGHT, Server

_ECHO = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(inputs.get_as_bytes())
"""


def test_what_a_server_answered_is_told_in_both_formats(serve: Callable[..., Server], store: Path) -> None:
    models.write_model(store / "echo", files={"model.py": _ECHO})
    models.write_model(store / "asleep", files={"model.py": _ECHO})
    server = serve(model_store=store, preload=LIGHT)
    for _ in range(3):
        assert server.client.post("/predictions/echo", content=b"x").status_code == 200
    for accept in (TEXT, OPEN_METRICS):
        told = scrape(server, accept)
        assert told.value("mmserve_requests_total", model="echo", status=200) == 3
        assert told.value("mmserve_request_seconds_count", model="echo") == 3
        assert told.value("mmserve_queue_depth", model="echo") == 0
        assert (told.value("mmserve_memory_bytes", model="echo") or 0) > 0
        assert sum(value for (name, labels), value in told.values.items() if name == "mmserve_workers") == 1
        assert told.models("mmserve_queue_depth") == {"echo", "(other)"}
        assert told.value("process_open_fds")


def test_the_metrics_of_a_server_can_only_be_read(serve: Callable[..., Server]) -> None:
    server = serve(preload=LIGHT)
    assert server.management.head("/metrics").status_code == 200
    refused = server.management.post("/metrics")
    assert_error(refused, 405, "MethodNotAllowedException")
    assert refused.headers["allow"] == "GET, HEAD"


def test_a_server_is_watched_where_it_is_managed(serve: Callable[..., Server]) -> None:
    server = serve(preload=LIGHT, management_address="http://127.0.0.1:0/")
    assert scrape(server).value("mmserve_models") is not None
    assert server.management.get("/events").status_code == 200
    for path in ("/metrics", "/events"):
        assert_error(server.client.get(path), 404, "ResourceNotFoundException")
