"""The template: what it preloads is learned, and what would harm it is not preloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sklearn.svm import SVC

from tests import models_for_tests as models
from tests.servers import Server, mapped_files, wait_until


def test_what_a_model_needed_is_preloaded_for_the_next(serve: Callable[..., Server], store: Path) -> None:
    model = SVC().fit([[0.0], [1.0]], [0, 1])
    for name in ("one", "two"):
        models.write_archive(store / f"{name}.tar.gz", model)
    server = serve(model_store=store, preload="numpy,joblib")
    first = server.template_pid()
    assert "sklearn" not in mapped_files(first)
    assert server.predictions("one", [[1.0]]) == [1]
    second = wait_until(lambda: server.template_pid() != first and server.template_pid(), "a next template")
    assert "_libsvm" in mapped_files(second)
    wait_until(lambda: first not in server.processes(), "the end of the first template")
    assert server.predictions("two", [[1.0]]) == [1]
    assert os.path.exists(f"/proc/{second}")


def test_modules_of_an_archive_are_never_preloaded(serve: Callable[..., Server], store: Path) -> None:
    """Neither the archive's own, nor what shares a name with them; what they import from the library is."""
    files = {
        "model.py": "import helper, tabnanny\nfrom djl_python import Output\n"
        "def handle(inputs):\n    return None if inputs.is_empty() else Output().add_as_json(helper.ANSWER)\n",
        "helper.py": "ANSWER = 42\n",
    }
    models.write_model(store / "coded", files=files)
    server = serve(model_store=store)
    first = server.template_pid()
    before = server.management.get("/status").json()["template"]["modules"]
    assert server.predict("coded", []).json() == 42
    wait_until(lambda: server.template_pid() != first, "a next template")
    learned = server.management.get("/status").json()["template"]["modules"] - before
    log = server.log.read_text()
    assert learned >= 1
    assert "helper" not in log
    assert server.predict("coded", []).json() == 42


def _serve_with_modules(serve: Callable[..., Server], store: Path, tmp_path: Path, code: str) -> Server:
    """A server whose template is told to preload a library module `trouble` with this code."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "trouble.py").write_text(code)
    models.write_archive(store / "linear.tar.gz", models.linear())
    return serve(model_store=store, preload="numpy,joblib,trouble,tabnanny", environment={"PYTHONPATH": str(library)})


def test_a_module_that_starts_threads_is_not_preloaded(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    server = _serve_with_modules(serve, store, tmp_path, code)
    assert server.predictions("linear", [[1.0]]) == [3.0]
    assert "starts threads: trouble" in server.log.read_text()
    assert server.template_threads() == 1


def test_a_module_that_ends_the_process_is_not_preloaded(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    server = _serve_with_modules(serve, store, tmp_path, "import os\nos._exit(1)\n")
    assert server.predictions("linear", [[1.0]]) == [3.0]
    assert "ends the process: trouble" in server.log.read_text()


def test_a_module_that_raises_is_not_preloaded(serve: Callable[..., Server], store: Path, tmp_path: Path) -> None:
    server = _serve_with_modules(serve, store, tmp_path, "raise ValueError('not today')\n")
    assert server.predictions("linear", [[1.0]]) == [3.0]
    assert "not preloaded: trouble (ValueError: not today)" in server.log.read_text()


def test_a_learned_module_that_starts_threads_costs_nothing_but_itself(
    serve: Callable[..., Server], store: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "trouble.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    code = (
        "import trouble, tabnanny\nfrom djl_python import Output\n"
        "def handle(inputs):\n    return None if inputs.is_empty() else Output().add_as_json(1)\n"
    )
    models.write_model(store / "coded", files={"model.py": code})
    server = serve(model_store=store, environment={"PYTHONPATH": str(library)})
    first = server.template_pid()
    assert server.predict("coded", []).json() == 1
    wait_until(lambda: "starts threads: trouble" in server.log.read_text(), "the candidate that was not taken")
    wait_until(lambda: server.template_pid() != first, "a template with the other modules")
    assert server.template_threads() == 1
    assert server.predict("coded", []).json() == 1
