"""Models that want more CPU than there is share it, however many callers each of them has; and one that is asked now
and then does not wait for one that is asked all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.http.raw import RawClient, post
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, scale, write_coded

# Needs a CPU for so long that the callers have time to be faster.
_BUSY = "end = time.thread_time() + 0.004\nwhile time.thread_time() < end:\n    pass\nreturn Output().add('done')"
# As many workers as run at one time in all on two CPUs.
_WORKERS = 4
# Seconds for which answers are counted.
_COUNTED = 0.8


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT)


@pytest.fixture
def write(server: Server) -> Iterator[Callable[..., None]]:
    """Writes models, with their workers running; they are taken away at the test's end."""
    written = []

    def write_model(name: str, weight: float = 1.0, workers: int = _WORKERS) -> None:
        written.append(name)
        write_coded(Path(server.settings["model_store"], name), _BUSY, properties=f"weight={weight}\n")
        assert scale(server, name, min_worker=workers, max_worker=workers).status_code == 200

    yield write_model
    for name in written:
        assert server.management.delete(f"/models/{name}").status_code == 200


@contextmanager
def flooded(server: Server, callers: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """So many callers of each model who ask again as soon as they are answered. Gives the answers that there are."""
    enough = threading.Event()
    answered = dict.fromkeys(callers, 0)

    def call(model: str) -> None:
        with RawClient(server) as client:
            while not enough.is_set():
                client.send(post(f"/predictions/{model}", b"x", "Content-Type: text/plain"))
                assert client.response().status == 200
                answered[model] += 1

    with ThreadPoolExecutor(sum(callers.values())) as threads:
        calling = [threads.submit(call, model) for model, number in callers.items() for _ in range(number)]
        try:
            wait_until(lambda: all(number > 50 for number in answered.values()), "all to be answered")
            yield answered
        finally:
            enough.set()
        for caller in calling:
            caller.result()


def ratio(server: Server, callers: Mapping[str, int]) -> float:
    """How many answers the first of two models gives for each of the second's."""
    with flooded(server, callers) as answered:
        before = list(answered.values())
        # What is measured is what happens in this time.
        time.sleep(_COUNTED)
        first, second = (now - then for now, then in zip(answered.values(), before, strict=True))
    return first / second


def test_two_models_share_the_cpu_however_many_callers_each_has(server: Server, write: Callable[..., None]) -> None:
    write("crowded")
    write("other")
    # By their callers it would be 4.
    assert ratio(server, {"crowded": 32, "other": 8}) < 2


def test_a_model_gets_as_much_as_its_weight_says(server: Server, write: Callable[..., None]) -> None:
    write("heavy", weight=4.0)
    write("light")
    assert 2 < ratio(server, {"heavy": 10, "light": 10}) < 8


def test_who_is_asked_now_and_then_does_not_wait_for_one_that_is_flooded(
    server: Server, write: Callable[..., None]
) -> None:
    write("flooded")
    write("quiet", workers=1)
    callers, asked = 20, 40
    with flooded(server, {"flooded": callers}) as answered:
        took = []
        before, start = answered["flooded"], time.monotonic()
        for _ in range(asked):
            began = time.monotonic()
            assert ask(server, "quiet").status_code == 200
            took.append(time.monotonic() - began)
        rate = (answered["flooded"] - before) / (time.monotonic() - start)
    # What a caller of the flooded one waits: for all who came before, from answer to answer.
    assert sorted(took)[asked // 2] < 0.6 * callers / rate
