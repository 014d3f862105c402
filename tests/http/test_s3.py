"""Models in S3: found by their keys, downloaded once, and newer ones taken over; against an S3 over real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import psutil
import pytest

from tests.http.s3_models import PREFIX, archive, key, put, serve_s3
from tests.s3 import S3
from tests.servers import Server, wait_until
from tests.supervision.coded import ask, code, events, reasons

# Seconds between two looks at S3, where a test waits for one.
_OFTEN = 0.2
_CALLERS = 32
_AT_ONCE = 4


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], s3: S3) -> Server:
    """One that has listed S3 when nothing was in it, and will not do so again."""
    server = serve_s3(serve_module, s3)
    wait_until(lambda: s3.count("GET", ""), "the list")
    return server


@pytest.fixture(scope="module")
def watching(serve_module: Callable[..., Server], s3: S3) -> Server:
    return serve_s3(serve_module, s3, s3_check_interval=_OFTEN)


def refresh(server: Server, model: str) -> httpx.Response:
    return server.management.post(f"/models/{model}/refresh")


def test_a_model_is_downloaded_once_for_all_who_ask_for_it_first(
    server: Server, s3: S3, threads: ThreadPoolExecutor
) -> None:
    put(s3, "crowd", "ja")
    answers = [call.result() for call in [threads.submit(ask, server, "crowd") for _ in range(_CALLERS)]]
    assert {answer.text for answer in answers} == {"ja"}
    # A list may have come before the first of them.
    assert s3.count("HEAD", key("crowd")) <= 1
    assert s3.count("GET", key("crowd")) == 1
    assert reasons(server, "crowd", "worker_started")[0] == "request"


def test_a_prefix_below_the_stores_is_part_of_the_name(server: Server, s3: S3) -> None:
    put(s3, "eu/de/shop-1", "ja")
    headers = {"X-Amzn-SageMaker-Target-Model": "eu/de/shop-1.tar.gz"}
    assert server.client.post("/invocations", content="x", headers=headers).text == "ja"
    assert server.describe("eu%2Fde%2Fshop-1")["modelUrl"] == f"s3://{s3.bucket}/{key('eu/de/shop-1')}"


@pytest.mark.parametrize("name", ["region=eu/shop 1", "a+b", "fr/shop (2), at noon"])
def test_keys_as_other_programs_write_them_are_models(server: Server, watching: Server, s3: S3, name: str) -> None:
    put(s3, name, "ja")
    headers = {"X-Amzn-SageMaker-Target-Model": f"{name}.tar.gz"}
    # It is looked for by the one server, and listed by the other.
    assert server.client.post("/invocations", content="x", headers=headers).text == "ja"
    wait_until(lambda: s3.bucket in url_of(watching, name), "the list to have it")
    assert ask(watching, quote(name, safe="")).text == "ja"


def url_of(server: Server, name: str) -> str:
    models = server.management.get("/models", params={"limit": 1000}).json()["models"]
    return next((str(model["modelUrl"]) for model in models if model["modelName"] == name), "")


def test_a_key_that_is_not_there_is_no_model(server: Server) -> None:
    answer = ask(server, "nobody")
    assert (answer.status_code, answer.json()["type"]) == (404, "ModelNotFoundException")


def test_an_object_is_registered_by_its_url_wherever_it_is(server: Server, s3: S3) -> None:
    s3.put("elsewhere/special.tar.gz", archive("special"))
    url = f"s3://{s3.bucket}/elsewhere/special.tar.gz"
    answer = server.management.post("/models", params={"url": url, "model_name": "mine"})
    assert answer.status_code == 200, answer.text
    assert (ask(server, "mine").text, server.describe("mine")["modelUrl"]) == ("special", url)
    missing = server.management.post("/models", params={"url": url.replace("special", "missing")})
    assert missing.status_code == 404


def test_a_refresh_answers_when_the_newer_object_has_taken_over(server: Server, s3: S3) -> None:
    put(s3, "renewed", "old")
    assert ask(server, "renewed").text == "old"
    assert refresh(server, "renewed").json()["newer"] is False
    put(s3, "renewed", "new")
    assert ask(server, "renewed").text == "old"
    answer = refresh(server, "renewed")
    assert (answer.status_code, answer.json()["newer"]) == (200, True), answer.text
    assert ask(server, "renewed").text == "new"


def test_a_refresh_says_why_newer_files_do_not_serve_and_the_older_ones_go_on(server: Server, s3: S3) -> None:
    put(s3, "broken-soon", "old")
    assert ask(server, "broken-soon").text == "old"
    s3.put(key("broken-soon"), archive("new", **{"model.py": "raise ValueError('no good')"}))
    answer = refresh(server, "broken-soon")
    assert answer.status_code == 424
    assert "no good" in answer.json()["message"]
    s3.put(key("broken-soon"), b"no archive at all")
    answer = refresh(server, "broken-soon")
    assert (answer.status_code, key("broken-soon") in answer.json()["message"]) == (424, True), answer.text
    assert ask(server, "broken-soon").text == "old"


def test_a_refresh_of_a_deleted_object_ends_its_model(server: Server, s3: S3) -> None:
    put(s3, "fleeting", "ja")
    assert ask(server, "fleeting").text == "ja"
    s3.delete(key("fleeting"))
    assert refresh(server, "fleeting").status_code == 404
    assert ask(server, "fleeting").status_code == 404
    assert [event["kind"] for event in events(server, "fleeting", "model_gone")] == ["model_gone"]


def test_a_refresh_of_what_was_unregistered_meanwhile_finds_nothing(
    server: Server, s3: S3, threads: ThreadPoolExecutor
) -> None:
    put(s3, "leaving", "ja")
    assert ask(server, "leaving").text == "ja"
    s3.forget()
    with s3.fault("HEAD", key("leaving"), times=1, delay=1.0):
        refreshing = threads.submit(refresh, server, "leaving")
        wait_until(lambda: s3.count("HEAD", key("leaving")), "S3 to be asked")
        assert server.management.delete("/models/leaving").status_code == 200
        assert not refreshing.done()
        assert refreshing.result().status_code == 404


def test_what_is_in_the_list_needs_no_other_request_than_its_download(watching: Server, s3: S3) -> None:
    put(s3, "listed", "ja")
    s3.put(f"{PREFIX}other.zip", b"")
    s3.put(f"{PREFIX}readme.md", b"")

    def names() -> list[str]:
        return [model["modelName"] for model in watching.management.get("/models").json()["models"]]

    wait_until(lambda: {"listed", "other"} <= set(names()), "the next list")
    s3.forget()
    assert ask(watching, "listed").text == "ja"
    assert (s3.count("HEAD", key("listed")), s3.count("GET", key("listed"))) == (0, 1)
    wait_until(lambda: s3.count("GET", "") > 2, "more lists")
    assert watching.log.read_text().count("readme.md") == 1


def test_a_changed_object_takes_over_within_the_interval_and_nobody_is_refused(
    watching: Server, s3: S3, threads: ThreadPoolExecutor
) -> None:
    put(s3, "changing", "old")
    assert ask(watching, "changing").text == "old"
    put(s3, "changing", "new")
    answers = [ask(watching, "changing")]
    while answers[-1].text != "new":
        answers += [call.result() for call in [threads.submit(ask, watching, "changing") for _ in range(_AT_ONCE)]]
        assert {(answer.status_code, answer.text) for answer in answers} <= {(200, "old"), (200, "new")}
    assert len(events(watching, "changing", "model_replaced")) == 1


def test_a_deleted_object_stops_being_served_and_is_served_again_when_it_is_back(watching: Server, s3: S3) -> None:
    put(s3, "away", "first")
    assert ask(watching, "away").text == "first"
    assert watching.management.put("/models/away?batch_size=7").status_code == 200
    s3.delete(key("away"))
    wait_until(lambda: ask(watching, "away").status_code == 404, "the model to go")
    wait_until(lambda: not [pid for pid in watching.processes() if "away" in _title(pid)], "the end of its workers")
    assert len(events(watching, "away", "model_gone")) == 1
    put(s3, "away", "second")
    wait_until(lambda: ask(watching, "away").text == "second", "the model to come back")
    assert watching.describe("away")["batchSize"] == 7


def test_what_was_registered_by_its_url_is_not_served_either_until_it_is_back(watching: Server, s3: S3) -> None:
    s3.put("elsewhere/own.tar.gz", archive("first"))
    url = f"s3://{s3.bucket}/elsewhere/own.tar.gz"
    asked = {"url": url, "model_name": "own", "min_worker": "1", "batch_size": "7"}
    assert watching.management.post("/models", params=asked).status_code == 200
    assert ask(watching, "own").text == "first"
    s3.delete("elsewhere/own.tar.gz")
    wait_until(lambda: ask(watching, "own").status_code == 404, "the model to go")
    assert ask(watching, "own").json()["type"] == "NoSuchKey"
    wait_until(lambda: not watching.worker_pids("own"), "the end of its workers")
    assert watching.describe("own")["modelUrl"] == url
    assert len(events(watching, "own", "model_gone")) == 1
    s3.put("elsewhere/own.tar.gz", archive("second"))
    # Nobody asks for it: it was registered with a worker.
    wait_until(lambda: watching.describe("own")["status"] == "READY", "the model to come back")
    assert (ask(watching, "own").text, watching.describe("own")["batchSize"]) == ("second", 7)


def test_workers_have_none_of_the_servers_credentials(server: Server, s3: S3) -> None:
    s3.put(key("nosy"), archive("", **{"model.py": code("return Output().add_as_json(sorted(os.environ))")}))
    found = ask(server, "nosy").json()
    assert "PATH" in found
    assert not [name for name in found if name.startswith("AWS")]


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""
