"""A model that does not load: its callers are told why, it is not tried at every request, and nobody else suffers."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.servers import Server, wait_until

# The first back-off is a second; what is tried again after it must not take longer than this.
BACKOFF = 1.0


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    store = tmp_path_factory.mktemp("store")
    models.write_archive(store / "healthy.tar.gz", models.linear())
    return serve_module(model_store=store, preload="sklearn.linear_model")


def write_counted(directory: Path, loads: Path, rest: str) -> Path:
    """A model.py that leaves a line in `loads` whenever it is loaded."""
    return models.write_model(directory, files={"model.py": f"open({str(loads)!r}, 'a').write('x\\n')\n{rest}\n"})


def count(loads: Path) -> int:
    return len(loads.read_text().splitlines()) if loads.exists() else 0


CODE = {
    "missing-module": ("import no_such_module", "ModuleNotFoundError", "no_such_module"),
    "exception": ("raise ValueError('bad weather')", "ValueError", "bad weather"),
    "no-message": ("raise KeyError", "KeyError", ""),
    "no-text": ("raise ValueError('\\ud800')", "ValueError", ""),
    "wordless": (
        "class Wordless(Exception):\n    def __str__(self):\n        raise ValueError\nraise Wordless",
        "Wordless",
        "",
    ),
    "cancelled": ("import asyncio\nraise asyncio.CancelledError", "CancelledError", ""),
    "exit": ("raise SystemExit(3)", "SystemExit", "3"),
    "syntax": ("def handle(:", "SyntaxError", ""),
    "no-handle": ("handler = None", "LoadError", "handle"),
    "failing-handle": ("def handle(inputs):\n    raise OSError('no disk')", "OSError", "no disk"),
    "dying": ("import os\nos._exit(7)", "WorkerDiedException", "exit code 7"),
    "killed": ("import os\nos.kill(os.getpid(), 9)", "WorkerDiedException", "SIGKILL"),
}


@pytest.mark.parametrize("name", CODE)
def test_code_that_does_not_load_is_named_to_the_caller(server: Server, server_store: Path, name: str) -> None:
    code, error_type, said = CODE[name]
    models.write_model(server_store / name, files={"model.py": code})
    assert_error(server.predict(name, [[1.0]]), 424, error_type, said)
    described = server.describe(name)
    assert described["status"] == "FAILED"
    assert described["failure"]["type"] == error_type
    assert described["failure"]["attempts"] == 1
    assert server.predictions("healthy", [[1.0]]) == [3.0]
    assert server.client.get("/ping").status_code == 200


def test_a_model_that_finds_no_memory_is_told_as_other_models_could_go(
    server: Server, server_store: Path, tmp_path: Path
) -> None:
    code = {"model.py": "raise MemoryError('not so much')"}
    models.write_model(server_store / "greedy", files=code)
    assert_error(server.predict("greedy", [[1.0]]), 507, "MemoryError", "not so much")
    registered = models.write_model(tmp_path / "registered", files=code)
    response = server.management.post("/models", params={"url": str(registered)})
    assert_error(response, 507, "MemoryError", "not so much")


def test_the_traceback_is_in_the_log_and_in_the_description(server: Server, server_store: Path) -> None:
    code = "def deep_down():\n    raise ArithmeticError('far below')\ndeep_down()"
    models.write_model(server_store / "traced", files={"model.py": code})
    assert_error(server.predict("traced", [[1.0]]), 424, "ArithmeticError", "far below")
    for told in (server.describe("traced")["failure"]["traceback"], server.log.read_text()):
        assert "in deep_down" in told
        assert "ArithmeticError: far below" in told


def _corrupt(directory: Path) -> None:
    models.write_model(directory, models.linear())
    (directory / "model.joblib").write_bytes((directory / "model.joblib").read_bytes()[:100])


def _archive_of(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return file.getvalue()


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "corrupt": (_corrupt, ""),
    "no-pickle": (lambda path: models.write_model(path, files={"model.joblib": "hello"}), ""),
    "empty": (models.write_model, ""),
    "climbing.tar.gz": (lambda path: path.write_bytes(_archive_of("../climbed")), "../climbed"),
    "truncated.tar.gz": (lambda path: path.write_bytes(_archive_of("model.py")[:-20]), "truncated.tar.gz"),
    "no-archive.zip": (lambda path: path.write_bytes(b"not at all"), "no-archive.zip"),
    "bad-workers": (
        lambda path: models.write_model(path, models.linear(), {"serving.properties": "minWorkers=several\n"}),
        "minWorkers",
    ),
    "bad-batch": (
        lambda path: models.write_model(path, models.linear(), {"serving.properties": "batch_size=0\n"}),
        "batch_size",
    ),
    "bad-properties": (
        lambda path: models.write_model(path, models.linear(), {"serving.properties": "a=\\u12\n"}),
        "line 1",
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_files_that_do_not_load_are_named_to_the_caller(server: Server, server_store: Path, file: str) -> None:
    write, said = FILES[file]
    write(server_store / file)
    name = file.partition(".")[0]
    response = server.predict(name, [[1.0]])
    assert response.status_code == 424, response.text
    content = response.json()
    assert content["type"].isidentifier()
    assert said in content["message"]
    assert server.describe(name)["failure"]["message"] == content["message"]
    assert not list(server_store.parent.rglob("climbed"))
    assert server.predictions("healthy", [[1.0]]) == [3.0]


def test_it_is_not_loaded_at_every_request(server: Server, server_store: Path, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    write_counted(server_store / "broken", loads, "raise RuntimeError('broken')")
    assert_error(server.predict("broken", [[1.0]]), 424, "RuntimeError", "broken")
    failed_at = time.monotonic()
    while time.monotonic() < failed_at + BACKOFF / 2:
        start = time.monotonic()
        assert_error(server.predict("broken", [[1.0]]), 424, "RuntimeError", "broken")
        assert time.monotonic() - start < BACKOFF / 2
    assert count(loads) == 1


def test_all_who_wait_for_it_are_told(server: Server, server_store: Path, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    write_counted(server_store / "awaited", loads, "import time\ntime.sleep(0.3)\nraise RuntimeError('broken')")
    with ThreadPoolExecutor(10) as threads:
        for response in threads.map(lambda _: server.predict("awaited", [[1.0]]), range(10)):
            assert_error(response, 424, "RuntimeError", "broken")
    assert count(loads) == 1


def test_it_is_tried_again_later_and_served_once_it_is_mended(
    server: Server, server_store: Path, tmp_path: Path
) -> None:
    loads = tmp_path / "loads"
    directory = write_counted(server_store / "mended", loads, "raise RuntimeError('broken')")
    assert_error(server.predict("mended", [[1.0]]), 424, "RuntimeError")
    failed_at = time.monotonic()
    write_counted(directory, loads, "def handle(inputs): pass")
    wait_until(lambda: server.predict("mended", [[1.0]]).status_code == 204, "a second try", deadline=10)
    assert time.monotonic() - failed_at > BACKOFF / 2
    assert count(loads) == 2
    described = server.describe("mended")
    assert described["status"] == "READY"
    assert "failure" not in described


def test_a_mended_archive_is_unpacked_again(server: Server, server_store: Path) -> None:
    archive = server_store / "replaced.tar.gz"
    archive.write_bytes(b"nothing yet")
    assert server.predict("replaced", [[1.0]]).status_code == 424
    models.write_archive(archive, models.linear())
    wait_until(lambda: server.predict("replaced", [[1.0]]).status_code == 200, "a second try", deadline=10)


def test_a_request_that_is_not_answered_in_time_is_in_the_log(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    code = "import time\ndef handle(inputs):\n    while not inputs.is_empty():\n        time.sleep(0.01)\n"
    models.write_model(store / "hanging", files={"model.py": code})
    server = serve(model_store=store, preload="numpy", request_timeout=0.5)
    assert server.predict("hanging", [[1.0]]).status_code == 504
    wait_until(lambda: "model hanging: worker" in server.log.read_text(), "a line of the hanging worker")
