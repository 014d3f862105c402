"""The main job in small: an archive dropped into a store is served, by a process of its own, until it is stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests import models_for_tests as models
from tests.servers import Server


def test_models_of_a_store_are_served_by_processes_of_their_own(serve: Callable[..., Server], store: Path) -> None:
    for number in range(5):
        models.write_archive(store / f"shop-{number}.tar.gz", models.linear(slope=number))
    server = serve(model_store=store)
    for number in range(5):
        assert server.predictions(f"shop-{number}", [[1.0], [2.0]]) == [number + 1.0, 2.0 * number + 1.0]
    pids = {pid for number in range(5) for pid in server.worker_pids(f"shop-{number}")}
    assert len(pids) == 5
    titles = {Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() for pid in pids}
    assert titles == {f"mmserve: worker shop-{number}" for number in range(5)}
    assert server.stop() == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_model_dropped_into_the_store_is_found_without_a_restart(serve: Callable[..., Server], store: Path) -> None:
    server = serve(model_store=store)
    assert server.predict("late", [[1.0]]).status_code == 404
    models.write_archive(store / "late.tar.gz", models.linear())
    assert server.predictions("late", [[1.0]]) == [3.0]
