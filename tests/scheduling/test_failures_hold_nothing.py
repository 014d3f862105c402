"""Requests that cannot be answered take no memory with them, and no batch is too large for its own requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from tests import models_for_tests as models
from tests.servers import LIGHT, Server, wait_until

MIB = 1024 * 1024


def test_requests_to_a_model_that_does_not_load_leave_nothing_behind(serve: Callable[..., Server], store: Path) -> None:
    models.write_model(store / "broken", files={"model.py": "raise RuntimeError('broken')\n"})
    server = serve(model_store=store, preload=LIGHT)
    front = psutil.Process(server.process.pid)
    body = bytes(MIB)

    def refuse(times: int) -> None:
        for _ in range(times):
            response = server.client.post("/predictions/broken", content=body)
            assert (response.status_code, response.json()["message"]) == (424, "RuntimeError: broken")

    # What reading such bodies takes once and for all.
    refuse(5)
    before = front.memory_info().rss
    refuse(100)
    assert front.memory_info().rss - before < 30 * MIB


# Each is answered with its own body and the number of those that came together; the first waits for the gate.
_NAMING = """
import os, time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    names = [each.get_as_string() for each in inputs.get_batches()]
    while names[0] == "first" and not os.path.exists({gate!r}):
        time.sleep(0.002)
    output = Output()
    for index, name in enumerate(names):
        output.add_as_json([name, len(names)], batch_index=index if inputs.is_batch() else None)
    return output
"""


def test_requests_that_fit_alone_are_answered_though_their_batch_would_not_fit(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    """Headers are given to a model's own code, and are not counted before a batch is written."""
    gate = tmp_path / "gate"
    files = {"model.py": _NAMING.format(gate=str(gate)), "serving.properties": "batch_size=100\n"}
    models.write_model(store / "naming", files=files)
    # The channel has room for 1 MiB beside a body. What is counted beside a body is 1 KiB.
    server = serve(model_store=store, preload=LIGHT, max_request_size=1024)
    headers = {"accept": f"text/plain;{'x' * 8000}", **{f"x-long-{index}": "x" * 8000 for index in range(9)}}
    names = [str(number) for number in range(24)]
    assert len(names) * 10 * 8000 > MIB + 1024 > len(names) * 1024 * 2

    with ThreadPoolExecutor(len(names) + 1) as threads:

        def ask(name: str) -> httpx.Response:
            return server.client.post("/predictions/naming", content=name, headers=headers)

        first = threads.submit(ask, "first")
        wait_until(
            lambda: [worker["status"] for worker in server.describe("naming")["workers"]] == ["BUSY"], "a busy worker"
        )
        others = [threads.submit(ask, name) for name in names]
        wait_until(lambda: server.describe("naming")["requestInQueue"] == len(names), "all others in the queue")
        gate.touch()
        responses = [done.result() for done in (first, *others)]
    assert Counter(response.status_code for response in responses) == {200: len(names) + 1}
    assert [response.json()[0] for response in responses] == ["first", *names]
    together = [response.json()[1] for response in responses]
    assert 1 < max(together) < len(names)
