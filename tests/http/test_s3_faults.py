"""An S3 that is slow, away, refuses or breaks off: what is answered, what goes on, and what is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.http.s3_models import archive, key, put, serve_s3
from tests.s3 import S3
from tests.servers import Server, wait_until
from tests.supervision.coded import ask, stays

# Seconds between two looks at S3, where a test waits for one.
_OFTEN = 0.2
# More than may look for a model's name at one time.
_LISTERS = 20
# More than archives are unpacked at one time.
_HANGING = [f"hanging-{number}" for number in range(8)]


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], s3: S3) -> Server:
    server = serve_s3(serve_module, s3)
    wait_until(lambda: s3.count("GET", ""), "the list")
    return server


def kinds(server: Server, *wanted: str) -> list[str]:
    found = server.management.get("/events", params={"limit": 1000}).json()["events"]
    return [event["kind"] for event in found if event["kind"] in wanted]


def cached_files(server: Server) -> list[str]:
    return sorted(path.name for path in Path(server.settings["cache_dir"]).glob(".tmp-*"))


@pytest.mark.parametrize(("status", "cut"), [(503, False), (500, False), (None, True)])
def test_what_passes_is_tried_again(server: Server, s3: S3, status: int | None, cut: bool) -> None:
    name = f"passing-{status or 'cut'}"
    put(s3, name, "ja")
    with s3.fault("GET", key(name), times=2, status=status, cut=cut):
        assert ask(server, name).text == "ja"
    assert s3.count("GET", key(name)) == 3
    assert cached_files(server) == []


def test_what_does_not_pass_is_told_with_when_to_come_back(server: Server, s3: S3) -> None:
    put(s3, "unlucky", "ja")
    with s3.fault("GET", key("unlucky"), cut=True):
        answer = ask(server, "unlucky")
        assert (answer.status_code, answer.json()["type"]) == (503, "StoreUnavailableException"), answer.text
        assert "cut off" in answer.json()["message"]
        assert "Retry-After" in answer.headers
    assert cached_files(server) == []
    wait_until(lambda: ask(server, "unlucky").text == "ja", "the next attempt")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_who_may_not_read_is_told_what_permission_is_missing(server: Server, s3: S3, method: str) -> None:
    name = f"secret-{method.lower()}"
    put(s3, name, "ja")
    with s3.fault(method, key(name), status=403):
        answer = ask(server, name)
        assert (answer.status_code, answer.json()["type"]) == (424, "AccessDeniedException"), answer.text
        for said in (f"s3://{s3.bucket}/{key(name)}", "s3:GetObject"):
            assert said in answer.json()["message"]
    assert s3.count(method, key(name)) == 1


def test_a_truncated_archive_is_named_and_nothing_of_it_is_served(server: Server, s3: S3) -> None:
    whole = archive("ja", **{"padding.txt": "".join(map(str, range(50_000)))})
    s3.put(key("half"), whole[: len(whole) // 2])
    answer = ask(server, "half")
    assert (answer.status_code, answer.json()["type"]) == (424, "ArchiveError"), answer.text
    assert key("half") in answer.json()["message"]
    assert cached_files(server) == []
    s3.put(key("half"), whole)
    assert server.management.post("/models/half/refresh").status_code == 200
    wait_until(lambda: ask(server, "half").text == "ja", "the whole archive")


def test_what_is_cached_is_served_while_s3_is_away_and_after_a_restart(serve: Callable[..., Server], s3: S3) -> None:
    put(s3, "kept", "ja")
    server = serve_s3(serve, s3, s3_check_interval=_OFTEN)
    assert ask(server, "kept").text == "ja"
    with s3.away():
        wait_until(lambda: kinds(server, "store_unavailable"), "the server to notice")
        assert ask(server, "kept").text == "ja"
        assert server.management.put("/models/kept?min_worker=0").status_code == 200
        wait_until(lambda: not server.worker_pids("kept"), "its model to sleep")
        assert ask(server, "kept").text == "ja"
        answer = ask(server, "never-seen")
        assert (answer.status_code, answer.json()["type"]) == (503, "StoreUnavailableException")
        assert stays(lambda: kinds(server, "store_unavailable"), ["store_unavailable"])
        server.end()
        again = serve_s3(serve, s3, s3_check_interval=_OFTEN)
        assert ask(again, "kept").text == "ja"
        assert [model["modelName"] for model in again.management.get("/models").json()["models"]] == ["kept"]
    wait_until(lambda: kinds(again, "store_available"), "S3 to be back")
    put(s3, "kept", "newer")
    wait_until(lambda: ask(again, "kept").text == "newer", "the newer object")


def test_what_was_deleted_is_not_back_while_s3_is_away(serve: Callable[..., Server], s3: S3) -> None:
    put(s3, "withdrawn", "ja")
    server = serve_s3(serve, s3, s3_check_interval=_OFTEN)
    assert ask(server, "withdrawn").text == "ja"
    s3.delete(key("withdrawn"))
    wait_until(lambda: ask(server, "withdrawn").status_code == 404, "its end")
    with s3.away():
        assert ask(server, "withdrawn").json()["type"] == "StoreUnavailableException"


def test_an_object_that_is_too_large_is_not_downloaded(serve: Callable[..., Server], s3: S3) -> None:
    s3.put(key("huge"), b"x" * 100_000)
    server = serve_s3(serve, s3, max_unpacked_size=1, max_unpacked_files=1)
    answer = ask(server, "huge")
    assert (answer.status_code, answer.json()["type"]) == (424, "ArchiveError"), answer.text
    assert "max_unpacked_size" in answer.json()["message"]


def test_a_server_is_ready_before_s3_has_been_listed(serve: Callable[..., Server], s3: S3) -> None:
    put(s3, "early", "ja")
    with s3.fault("GET", "", delay=600.0):
        server = serve_s3(serve, s3)
        assert ask(server, "early").text == "ja"
        wait_until(lambda: s3.count("GET", ""), "the list to be asked for")
        # What is under way does not hold up its end.
        started = time.monotonic()
        server.end()
        assert time.monotonic() - started < 5


def test_who_waits_for_the_first_list_holds_up_nobody_else(
    serve: Callable[..., Server], s3: S3, threads: ThreadPoolExecutor
) -> None:
    put(s3, "unlisted", "ja")
    with s3.fault("GET", "", delay=3.0):
        server = serve_s3(serve, s3)
        listing = [threads.submit(server.management.get, "/models") for _ in range(_LISTERS)]
        wait_until(lambda: s3.count("GET", ""), "the list to be asked for")
        assert ask(server, "unlisted").text == "ja"
        assert not [call for call in listing if call.done()]
        assert {call.result().status_code for call in listing} == {200}


def test_names_that_are_made_up_hold_up_none_that_is_listed(
    serve: Callable[..., Server], s3: S3, threads: ThreadPoolExecutor
) -> None:
    put(s3, "listed-before", "ja")
    server = serve_s3(serve, s3)
    wait_until(lambda: "listed-before" in server.management.get("/models").text, "the list")
    with s3.fault("HEAD", delay=3.0):
        asked = [threads.submit(ask, server, f"made-up-{number}") for number in range(_LISTERS)]
        wait_until(lambda: s3.count("HEAD") >= 8, "S3 to be asked")
        assert ask(server, "listed-before").text == "ja"
        assert not [call for call in asked if call.done()]
        assert {call.result().status_code for call in asked} == {404}


def test_models_are_served_and_renewed_where_only_reading_is_allowed(serve: Callable[..., Server], s3: S3) -> None:
    put(s3, "readable", "old")
    with s3.fault("GET", "", status=403):
        server = serve_s3(serve, s3, s3_check_interval=_OFTEN)
        assert ask(server, "readable").text == "old"
        wait_until(lambda: kinds(server, "store_not_listed"), "the refusal")
        put(s3, "readable", "new")
        wait_until(lambda: ask(server, "readable").text == "new", "the newer object")
        assert kinds(server, "store_not_listed") == ["store_not_listed"]


def test_a_look_begins_early_enough_to_have_loaded_what_it_finds_within_the_interval(
    serve: Callable[..., Server], s3: S3
) -> None:
    interval = 1.0
    s3.forget()
    serve_s3(serve, s3, s3_check_interval=interval)
    looks: list[float] = []
    while len(looks) < 5:
        wait_until(lambda: s3.count("GET", "") > len(looks), "the next look")
        looks.append(time.monotonic())
    # A busy host may hold up one of them, and so lengthen one and shorten the next.
    assert (looks[-1] - looks[0]) / (len(looks) - 1) < interval


def test_damaged_records_of_the_cache_are_ignored(serve: Callable[..., Server], s3: S3) -> None:
    put(s3, "recorded", "ja")
    server = serve_s3(serve, s3)
    assert ask(server, "recorded").text == "ja"
    server.end()
    records = list(Path(server.settings["cache_dir"], "s3").rglob("*.json"))
    assert len(records) == 1
    records[0].write_bytes(b"{")
    s3.forget()
    again = serve_s3(serve, s3)
    assert ask(again, "recorded").text == "ja"
    assert s3.count("GET", key("recorded")) == 1
    again.end()
    s3.forget()
    once_more = serve_s3(serve, s3)
    assert ask(once_more, "recorded").text == "ja"
    assert s3.count("GET", key("recorded")) == 0


def test_a_store_that_hangs_holds_up_nobody_else(server: Server, s3: S3, threads: ThreadPoolExecutor) -> None:
    put(s3, "warm", "ja")
    assert ask(server, "warm").text == "ja"
    assert server.management.put("/models/warm?min_worker=0").status_code == 200
    for name in _HANGING:
        put(s3, name, "ja")
    with s3.fault("GET", delay=2.0):
        hanging = [threads.submit(ask, server, name) for name in _HANGING]
        wait_until(lambda: sum(s3.count("GET", key(name)) for name in _HANGING) >= len(_HANGING), "all to hang")
        assert ask(server, "warm").text == "ja"
        assert not [call for call in hanging if call.done()]
        assert {call.result().text for call in hanging} == {"ja"}


def test_a_bucket_that_is_missing_is_named_and_takes_no_model_away(serve: Callable[..., Server], s3: S3) -> None:
    put(s3, "kept", "ja")
    put(s3, "later", "ja")
    server = serve_s3(serve, s3, s3_check_interval=0.1)
    assert ask(server, "kept").text == "ja"
    with s3.fault(status=404):
        wait_until(lambda: kinds(server, "store_not_listed"), "word of it")
        s3.forget()
        wait_until(lambda: s3.count("GET", "") > 1, "two more looks")
        refused = ask(server, "never-listed")
        assert (refused.status_code, refused.json()["message"]) == (503, f"There is no bucket {s3.bucket}.")
        assert ask(server, "kept").text == "ja"
    wait_until(lambda: ask(server, "never-listed").status_code == 404, "the bucket to be back")
    assert ask(server, "later").text == "ja"
    assert not kinds(server, "model_gone")
