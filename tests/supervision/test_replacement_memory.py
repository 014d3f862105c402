"""Newer archives take over within the memory that there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, events, put, ready

# Seconds between two looks at the store.
_INTERVAL = 0.1
# What a worker of a large model holds, and what there is for all of them, in bytes.
_LARGE = "import numpy\nheld = numpy.ones(60 * 1024 * 1024 // 8)"
_ROOM = 230 * 1024 * 1024


def test_workers_are_replaced_within_the_memory_that_there_is(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    empty = serve(preload=LIGHT, runtime_dir=tmp_path / "empty")
    front, template = psutil.Process(empty.process.pid), psutil.Process(empty.template_pid())
    itself = front.memory_full_info().uss + template.memory_info().rss
    # Room for three and a half.
    narrow = serve(model_store=store, preload=LIGHT, store_check_interval=_INTERVAL, memory_budget=itself + _ROOM)
    put(store / "large.tar.gz", "old", load=_LARGE, properties="minWorkers=3\n")
    assert ask(narrow, "large").text == "old"
    wait_until(lambda: ready(narrow, "large") == 3, "three workers")
    old = set(narrow.worker_pids("large"))
    put(store / "large.tar.gz", "new", load=_LARGE, properties="minWorkers=3\n")
    wait_until(lambda: ready(narrow, "large") == 3 and not old & set(narrow.worker_pids("large")), "three new workers")
    assert ask(narrow, "large").text == "new"
    running = [0]
    for event in events(narrow, "large", "worker_started", "worker_stopped"):
        running.append(running[-1] + (1 if event["kind"] == "worker_started" else -1))
    assert max(running) == 3
    # Nor was the last one that serves given away for one that might not.
    assert min(running[running.index(3) :]) >= 1
