"""The front asks for short slices, and nothing that it starts has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import LIGHT, Server
from tests.supervision.coded import ask, write_coded

# Milliseconds. The kernel's own slices are 0.7 ms and more, depending on the number of CPUs.
_SHORT = 0.1


def slice_of(pid: int) -> float | None:
    """Milliseconds, as the kernel shows them."""
    for line in Path(f"/proc/{pid}/sched").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "se.slice":
            return float(value) / 1e6
    return None


def test_the_front_has_short_slices_and_its_processes_the_usual(serve: Callable[..., Server], store: Path) -> None:
    write_coded(store / "coded")
    server = serve(model_store=store, preload=LIGHT)
    assert ask(server, "coded").status_code == 200
    front = slice_of(server.process.pid)
    usual = slice_of(os.getpid())
    if front is None or usual is None:
        pytest.skip("this kernel does not show slices")
    assert front == _SHORT < usual
    for pid in (server.template_pid(), *server.worker_pids("coded")):
        assert slice_of(pid) == usual
