"""Answers that come in pieces: each goes out as it is made, and what is not finished is cut off."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError, ResponseStreamingError

from mmserve_worker.batch import STREAM_WINDOW
from tests.http import gates
from tests.http.gates import Gate
from tests.http.raw import RawClient, post
from tests.http.runtime import ClientOf
from tests.http.streams import ask, serve_streaming
from tests.servers import Server, wait_until

MIB = 1024 * 1024

gate = gates.module_gate


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Server:
    properties = {
        "words": "maxWorkers=1\n",
        "batched": "maxWorkers=1\nbatch_size=8\n",
        "timed": "maxWorkers=1\noption.predict_timeout=1\n",
    }
    return serve_streaming(serve_module, tmp_path_factory.mktemp("store"), gate, properties)


def assert_goes_on(server: Server, pid: int, model: str = "words") -> None:
    """The worker is still that one, and answers."""
    assert ask(server, "still here", model).text == "stillhere"
    assert server.worker_pids(model) == [pid]


def test_every_piece_goes_out_when_it_is_made(server: Server, gate: Gate) -> None:
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"one two hold-a three", "x-request-id: 7"))
        response = client.response()
        assert (response.status, response.headers["transfer-encoding"], response.body) == (200, "chunked", b"")
        assert response.headers["x-request-id"] == "7"
        assert [client.chunk(), client.chunk()] == [b"one", b"two"]
        gate.wait_for("a")
        gate.let("a")
        assert client.chunks() == [b"three"]
        # The connection can be used again.
        client.send(post("/predictions/words", b"again"))
        client.response()
        assert client.chunks() == [b"again"]


def test_in_http_1_0_an_answer_ends_with_the_connection(server: Server) -> None:
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"one two", version="1.0"))
        response = client.response()
        assert "transfer-encoding" not in response.headers
        assert client.rest() == b"onetwo"


def test_large_pieces_come_whole_and_no_piece_is_an_empty_answer(server: Server) -> None:
    response = ask(server, f"begin large-{3 * MIB + 1} end")
    assert response.content == b"begin" + b"x" * (3 * MIB + 1) + b"end"
    assert ask(server, f"large-{MIB}").content == b"x" * MIB
    nothing = ask(server, "sleep-0")
    assert (nothing.status_code, nothing.content, nothing.headers["content-length"]) == (200, b"", "0")


def test_boto3_reads_a_stream_as_it_reads_any_answer(server: Server, client_of: ClientOf) -> None:
    client = client_of(server.url)
    said = {"EndpointName": "any", "TargetModel": "words.tar.gz"}
    answer = client.invoke_endpoint(Body=b"one two three", **said)
    assert (answer["Body"].read(), answer["InvokedProductionVariant"]) == (b"onetwothree", "AllTraffic")
    with pytest.raises(ResponseStreamingError):
        client.invoke_endpoint(Body=b"one raise-halfway", **said)["Body"].read()
    with pytest.raises(ClientError, match="early"):
        client.invoke_endpoint(Body=b"raise-early", **said)


def test_what_fails_before_the_first_piece_is_an_error(server: Server) -> None:
    response = ask(server, "raise-early")
    assert (response.status_code, response.json()["message"]) == (424, "early")


def test_what_fails_later_is_cut_off_and_the_worker_goes_on(server: Server) -> None:
    ask(server, "first")
    (pid,) = server.worker_pids("words")
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        ask(server, "one two raise-halfway")
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        ask(server, "one two cancel")
    assert_goes_on(server, pid)
    log = server.log.read_text()
    assert "model words: an answer is cut off after its first piece: RuntimeError: halfway" in log
    assert "in pieces" in log, "the traceback of the model's own code"


def test_in_http_1_0_what_is_cut_off_ends_with_a_reset(server: Server) -> None:
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"one raise-halfway", version="1.0"))
        with pytest.raises(ConnectionResetError):
            wait_until(lambda: not client.some(), "the end of the connection")


def test_a_worker_that_dies_cuts_its_answer_off_and_nothing_is_tried_again(server: Server, gate: Gate) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        ask(server, "mortal die")
    assert (gate.directory / "asked-mortal").read_text() == "x"
    assert ask(server, "another").text == "another"
    assert "cut off after its first piece: The worker was killed by SIGKILL." in server.log.read_text()


def test_a_worker_that_dies_before_the_first_piece_is_replaced(server: Server, gate: Gate) -> None:
    assert ask(server, "die").status_code == 424
    assert len((gate.directory / "asked-die").read_text()) == 3


def test_when_the_client_goes_the_generator_is_closed_and_the_worker_goes_on(server: Server, gate: Gate) -> None:
    ask(server, "first")
    (pid,) = server.worker_pids("words")
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"deserted hold-deserted many-10000"))
        client.response()
        assert client.chunk() == b"deserted"
        gate.wait_for("deserted")
    gate.let("deserted")
    wait_until((gate.directory / "closed-deserted").exists, "the generator to be closed")
    wait_until((gate.directory / "finalized-deserted").exists, "the finalizer to have run")
    assert_goes_on(server, pid)


def test_a_client_that_leaves_before_the_first_piece_is_no_trouble(server: Server, gate: Gate) -> None:
    ask(server, "first")
    (pid,) = server.worker_pids("words")
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"hold-leaving many-10000"))
        gate.wait_for("leaving")
    gate.let("leaving")
    wait_until((gate.directory / "closed-hold-leaving").exists, "the generator to be closed")
    assert_goes_on(server, pid)


def test_a_client_that_leaves_in_the_moment_of_the_first_piece_is_no_trouble(server: Server, gate: Gate) -> None:
    ask(server, "first")
    (pid,) = server.worker_pids("words")
    made = gate.directory / "made"
    made.unlink(missing_ok=True)
    with RawClient(server) as client:
        client.send(post("/predictions/words", b"hold-moment many-10000"))
        gate.wait_for("moment")
        # So that it learns of both at once, of the client first.
        server.process.send_signal(signal.SIGSTOP)
    try:
        gate.let("moment")
        wait_until(made.exists, "the first piece to be made")
        wait_until(lambda: made.stat().st_size > STREAM_WINDOW, "as many pieces as are sent ahead")
    finally:
        server.process.send_signal(signal.SIGCONT)
    wait_until((gate.directory / "closed-hold-moment").exists, "the generator to be closed")
    assert_goes_on(server, pid)


def test_a_generator_waits_for_a_slow_client_whom_nobody_hurries(server: Server, gate: Gate) -> None:
    made = gate.directory / "made"
    made.unlink(missing_ok=True)
    front = psutil.Process(server.process.pid)
    before = front.memory_info().rss
    count = 1000
    with RawClient(server) as client:
        client.send(post("/predictions/timed", b"slow many-%d" % count))
        client.response()
        assert client.chunk() == b"slow"
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(ask, server, "queued", "timed")
            # Longer than predict_timeout, which is the model's: it waits for the client, not the client for it.
            standing = (0, 0.0)

            def stands_still() -> bool:
                nonlocal standing
                # The first piece has come before it writes there.
                size = made.stat().st_size if made.exists() else -1
                standing = (size, standing[1] + 0.005) if size == standing[0] else (size, 0.0)
                return standing[1] > 1.3

            wait_until(stands_still, "the generator to wait")
            # What the kernel takes of it, and four pieces.
            assert made.stat().st_size * 65536 < 16 * MIB
            assert front.memory_info().rss - before < 16 * MIB
            assert len(client.chunks()) == count
            assert other.result().text == "queued"


def test_predict_timeout_is_for_the_time_between_two_pieces(server: Server) -> None:
    assert ask(server, "a sleep-0.4 b sleep-0.4 c sleep-0.4 d", "timed").text == "abcd"
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        ask(server, "a sleep-30", "timed")
    events = server.management.get("/events", params={"model": "timed"}).json()["events"]
    assert [event["kind"] for event in events].count("worker_stuck") == 1
    assert ask(server, "replaced", "timed").text == "replaced"


def test_a_model_that_streams_is_given_one_request_at_a_time(
    server: Server, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    ask(server, "once", "batched")
    held = threads.submit(ask, server, "held hold-batched", "batched")
    gate.wait_for("batched")
    others = [threads.submit(ask, server, f"together and-{number}", "batched") for number in range(5)]
    wait_until(lambda: server.describe("batched")["requestInQueue"] == 5, "all others in the queue")
    gate.let("batched")
    assert held.result().text == "held"
    assert [other.result().text for other in others] == [f"1and-{number}" for number in range(5)]


def test_a_batch_that_was_made_before_that_was_known_is_answered_one_by_one(
    serve: Callable[..., Server], store: Path, gate: Gate, threads: ThreadPoolExecutor
) -> None:
    properties = "maxWorkers=1\nbatch_size=8\nmax_batch_delay=10000\n"
    server = serve_streaming(serve, store, gate, {"batched": properties})
    answers = [threads.submit(ask, server, f"together and-{number}", "batched") for number in range(8)]
    assert [answer.result().text for answer in answers] == [f"1and-{number}" for number in range(8)]
