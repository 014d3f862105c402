"""Memory is bounded by what workers really hold: who is evicted for whom, who never is, and who is told that there is
none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.http.errors import assert_error
from tests.http.gates import Gate
from tests.servers import LIGHT, Server, wait_until
from tests.supervision.coded import ask, events, reasons, write_coded

MIB = 1024 * 1024
# Of each model that is asked in turn, and what there is for all of them: three fit, with what workers hold beside.
SIZE, ROOM = 40, 170
# More than there is room for, though a worker is thought to hold hardly anything until it has been looked at.
TOO_MUCH = 200


def holding(megabytes: int) -> str:
    """Code that takes so much memory, and really has it."""
    return f"import numpy\nheld = numpy.ones({megabytes} * 1024 * 1024 // 8)"


def figure(server: Server, name: str) -> int:
    """One of the server's own from its metrics."""
    lines = server.management.get("/metrics").text.splitlines()
    return int(next(float(line.split()[1]) for line in lines if line.startswith(f"mmserve_{name} ")))


@pytest.fixture(scope="module")
def roomy(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with all the host's memory, for models that have limits of their own."""
    return serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT)


@pytest.fixture(scope="module")
def narrow(roomy: Server, serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One that has room for three models beside what it holds itself."""
    front, template = psutil.Process(roomy.process.pid), psutil.Process(roomy.template_pid())
    itself = front.memory_full_info().uss + template.memory_info().rss
    budget = itself + ROOM * MIB
    server = serve_module(model_store=tmp_path_factory.mktemp("store"), preload=LIGHT, memory_budget=budget)
    wait_until(lambda: figure(server, "memory_used_bytes") > 0.8 * itself, "a look at the template")
    return server


Write = Callable[..., None]


@pytest.fixture
def write(narrow: Server) -> Iterator[Write]:
    """Writes models that hold memory, which answer with their names; they are taken away at the test's end."""
    written = []

    def write_model(name: str, properties: str = "") -> None:
        written.append(name)
        directory = Path(narrow.settings["model_store"], name)
        write_coded(directory, f"return Output().add({name!r})", load=holding(SIZE), properties=properties)

    yield write_model
    for name in written:
        assert narrow.management.delete(f"/models/{name}").status_code == 200


def ask_all(server: Server, *names: str) -> None:
    """Asks one model after the other, each of which has to answer."""
    for name in names:
        assert ask(server, name).text == name


def evictions(server: Server, *names: str) -> list[tuple[str, str]]:
    """Models that were evicted, in that order, and why."""
    found = [event for name in names for event in events(server, name, "evicted")]
    return [(event["model"], event["reason"]) for event in sorted(found, key=lambda event: event["id"])]


def keeps_to_its_budget(server: Server) -> bool:
    return figure(server, "memory_used_bytes") <= figure(server, "memory_budget_bytes")


def test_the_least_recently_used_goes_for_one_that_is_asked(narrow: Server, write: Write) -> None:
    names = ["first", "second", "third", "fourth"]
    for name in names:
        write(name)
    ask_all(narrow, "first", "second", "third", "first", "fourth")
    # What a model holds that was never loaded before is seen only then.
    wait_until(lambda: keeps_to_its_budget(narrow), "the end of one worker")
    ((evicted, reason),) = evictions(narrow, *names)
    assert evicted == "second"
    assert "least recently used" in reason
    assert narrow.describe("second")["status"] == "SLEEPING"
    assert reasons(narrow, "second", "worker_stopped") == ["evicted"]
    # What this one holds is known: room is made before it is started.
    ask_all(narrow, "second")
    assert keeps_to_its_budget(narrow)
    _, (evicted, reason) = evictions(narrow, *names)
    assert evicted == "third"
    assert "; for second; " in reason


def test_neither_a_pinned_model_nor_what_a_minimum_keeps_is_evicted(narrow: Server, write: Write) -> None:
    write("pinned", "pinned=true\n")
    write("minimum", "minWorkers=1\n")
    write("one")
    write("other")
    ask_all(narrow, "pinned", "minimum")
    kept = narrow.worker_pids("pinned") + narrow.worker_pids("minimum")
    for _ in range(2):
        ask_all(narrow, "one", "other")
        wait_until(lambda: keeps_to_its_budget(narrow), "the end of one worker")
    assert narrow.worker_pids("pinned") + narrow.worker_pids("minimum") == kept
    evicted = [name for name, _ in evictions(narrow, "pinned", "minimum", "one", "other")]
    assert set(evicted) == {"one", "other"}


def test_who_finds_no_room_is_told_so_and_nobody_who_is_in_use_goes(
    narrow: Server, tmp_path: Path, write: Write
) -> None:
    gate = Gate(tmp_path / "gate")
    large = gate.write_model(Path(narrow.settings["model_store"], "large"))
    source = (large / "model.py").read_text()
    (large / "model.py").write_text(f"{holding(TOO_MUCH)}\n{source}")
    write("refused")
    unloaded = write_coded(tmp_path / "unloaded", load=holding(SIZE))
    with ThreadPoolExecutor(3) as threads:
        in_use = threads.submit(ask, narrow, "large", "in-use")
        gate.wait_for("in-use")
        register = {"url": str(unloaded)}
        registered = threads.submit(narrow.management.post, "/models", params=register)
        refused = ask(narrow, "refused")
        assert_error(refused, 503, "WlmOutOfMemoryException", "refused", "MiB")
        assert int(refused.headers["retry-after"]) >= 1
        assert_error(registered.result(), 507, "WlmOutOfMemoryException", "unloaded", "MiB")
        assert narrow.management.get("/models/unloaded").status_code == 404
        assert "unloaded" not in narrow.management.get("/models").text
        assert not in_use.done()
        gate.let("in-use")
        assert in_use.result().text == "in-use"
    wait_until(lambda: ask(narrow, "refused").status_code == 200, "room, now that the large one may go")
    assert [name for name, _ in evictions(narrow, "large", "refused")] == ["large"]
    assert narrow.management.post("/models", params=register).status_code == 200
    for name in ("unloaded", "large"):
        assert narrow.management.delete(f"/models/{name}").status_code == 200


def test_a_model_is_started_when_there_is_as_much_as_it_says_that_it_needs(
    narrow: Server, write: Write, tmp_path: Path
) -> None:
    write("idle")
    write("demanding", f"required_memory_mb={ROOM - 20}\n")
    ask_all(narrow, "idle")
    # Its files are read only now.
    ask_all(narrow, "demanding")
    ((evicted, reason),) = evictions(narrow, "idle", "demanding")
    assert evicted == "idle"
    assert "; for demanding; " in reason
    described = narrow.describe("demanding")
    assert (described["requiredMemoryMb"], described["settingsFrom"]["requiredMemoryMb"]) == (
        ROOM - 20,
        "serving.properties",
    )
    # Once it is loaded, what it really holds is what counts.
    ask_all(narrow, "idle")
    assert len(evictions(narrow, "idle", "demanding")) == 1

    write("greedy", f"required_memory_mb={2 * ROOM}\n")
    assert_error(ask(narrow, "greedy"), 503, "WlmOutOfMemoryException", "greedy", f"about {2 * ROOM} MiB")
    outside = write_coded(tmp_path / "outside", properties=f"required_memory_mb={2 * ROOM}\n")
    refused = narrow.management.post("/models", params={"url": str(outside)})
    assert_error(refused, 507, "WlmOutOfMemoryException", "outside", f"about {2 * ROOM} MiB")
    assert reasons(narrow, "greedy", "worker_started") == []
    ask_all(narrow, "demanding", "idle")


def test_of_models_that_are_asked_in_turn_some_stay(narrow: Server, write: Write) -> None:
    """Where the least recently used one always went, it would be the one that is asked next."""
    names = [f"turn-{number}" for number in range(4)]
    for name in names:
        write(name)
    ask_all(narrow, *names)
    wait_until(lambda: keeps_to_its_budget(narrow), "the end of one worker")
    before = len(evictions(narrow, *names))
    rounds = 5
    for _ in range(rounds):
        ask_all(narrow, *names)
        assert keeps_to_its_budget(narrow)

    assert len(evictions(narrow, *names)) - before <= 0.75 * rounds * len(names)


def test_a_worker_that_grows_too_large_is_replaced_between_two_requests(roomy: Server) -> None:
    grow = "held.append(b'x' * (1 << 20))\ntime.sleep(0.01)\nreturn Output().add_as_json(os.getpid())"
    store = Path(roomy.settings["model_store"])
    write_coded(store / "growing", grow, load="held = []", properties="max_memory_mb=30\n")
    pids = []

    def replaced() -> bool:
        answer = ask(roomy, "growing")
        assert answer.status_code == 200, answer.text
        pids.append(answer.json())
        return len(set(pids)) > 1

    wait_until(replaced, "another worker")
    (event,) = events(roomy, "growing", "worker_too_large")
    assert event["reason"] == "max_memory"
    assert event["memory"] > 30 * MIB
    assert reasons(roomy, "growing", "worker_stopped") == ["max_memory"]


def test_more_workers_than_there_is_room_for_are_refused_and_not_waited_for(
    narrow: Server, write: Write, tmp_path: Path
) -> None:
    write("scaled")
    ask_all(narrow, "scaled")
    refused = narrow.management.put("/models/scaled", params={"min_worker": "6"}, timeout=5)
    assert_error(refused, 507, "WlmOutOfMemoryException", "scaled", "MiB")
    assert keeps_to_its_budget(narrow)


def test_a_new_model_with_more_workers_than_there_is_room_for_does_not_take_it(narrow: Server, tmp_path: Path) -> None:
    directory = write_coded(tmp_path / "several", load=holding(SIZE))
    parameters = {"url": str(directory), "min_worker": "6"}
    try:
        refused = narrow.management.post("/models", params=parameters, timeout=5)
        assert figure(narrow, "memory_used_bytes") < 1.05 * figure(narrow, "memory_budget_bytes")
        assert_error(refused, 507, "WlmOutOfMemoryException", "several", "MiB")
    finally:
        narrow.management.delete("/models/several")


def test_a_model_that_needs_more_than_it_may_hold_is_not_started_again_and_again(roomy: Server) -> None:
    store = Path(roomy.settings["model_store"])
    write_coded(store / "too-low", load=holding(SIZE), properties="minWorkers=1\nmax_memory_mb=10\n")
    ask(roomy, "too-low")
    wait_until(lambda: bool(events(roomy, "too-low", "worker_too_large")), "a look at it")
    (pid,) = roomy.worker_pids("too-low")
    ask(roomy, "too-low")
    (event,) = events(roomy, "too-low", "worker_too_large")
    assert "max_memory_mb" in event["reason"]
    assert roomy.worker_pids("too-low") == [pid]
    assert reasons(roomy, "too-low", "worker_stopped") == []


def test_many_models_that_were_never_loaded_keep_to_the_budget_together(narrow: Server, write: Write) -> None:
    names = [f"never-{number}" for number in range(10)]
    for name in names:
        write(name)
    peak = 0
    with ThreadPoolExecutor(len(names)) as threads:
        asked = [threads.submit(ask, narrow, name) for name in names]
        while not all(one.done() for one in asked):
            peak = max(peak, figure(narrow, "memory_used_bytes"))
    assert [one.result().text for one in asked] == names
    # One that is looked at for the first time may be more than was thought; ten at once were half of the budget more.
    assert peak < figure(narrow, "memory_budget_bytes") + 1.5 * SIZE * MIB
