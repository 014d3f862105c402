"""Models made of a few lines of code, which need no scikit-learn, and what a server says that it did for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests import models_for_tests as models
from tests.servers import Server

# Seconds for which something that must not happen is waited for. Where it did happen, it took a tenth of that.
_OBSERVED = 0.4

ANSWER_PID = "return Output().add_as_json(os.getpid())"


def code(handler: str = ANSWER_PID, *, load: str = "") -> str:
    """A model.py: `load` runs when it is loaded, and `handler` for each request, whose text is `asked`."""
    body = handler.replace("\n", "\n    ")
    return (
        f"import os, signal, time\nfrom djl_python import Output\n{load}\n"
        "def handle(inputs):\n    if inputs.is_empty():\n        return None\n"
        f"    asked = inputs.get_as_string()\n    {body}\n"
    )


def write_coded(directory: Path, handler: str = ANSWER_PID, *, load: str = "", properties: str = "") -> Path:
    files = {"model.py": code(handler, load=load), "serving.properties": properties}
    return models.write_model(directory, files=files)


def put(archive: Path, answer: str, *, load: str = "", properties: str = "", handler: str = "") -> None:
    """An archive of a model that answers so, in the place of another at once, as whoever deploys it would."""
    files = {
        "model.py": code(handler or f"return Output().add({answer!r})", load=load),
        "serving.properties": properties,
    }
    # A name that is no model's.
    temporary = models.write_archive(archive.with_name(f".{archive.name}"), files=files)
    temporary.replace(archive)


def counting(file: Path) -> str:
    """Code that leaves a line in a file, to count how often it has run."""
    return f"open({str(file)!r}, 'a').write('x\\n')"


def count(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def ask(server: Server, model: str, what: str = "x", **headers: str) -> httpx.Response:
    return server.client.post(f"/predictions/{model}", content=what, headers={"content-type": "text/plain", **headers})


def ready(server: Server, model: str) -> int:
    """Workers of a model that have nothing to do."""
    return [worker["status"] for worker in server.describe(model)["workers"]].count("READY")


def scale(server: Server, model: str, **parameters: Any) -> httpx.Response:
    return server.management.put(f"/models/{model}", params=parameters)


def events(server: Server, model: str, *kinds: str) -> list[dict[str, Any]]:
    """What the server did for a model, oldest first: all of it, or of some kinds."""
    response = server.management.get("/events", params={"model": model, "limit": 1000})
    assert response.status_code == 200, response.text
    return [event for event in response.json()["events"] if not kinds or event["kind"] in kinds]


def reasons(server: Server, model: str, kind: str) -> list[str]:
    return [event["reason"] for event in events(server, model, kind)]


def stays(value: Callable[[], Any], expected: Any, seconds: float = _OBSERVED) -> bool:
    """Whether what must not change is the same all the time that it is looked at."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value() != expected:
            return False
        # Between two looks, so that they do not keep the server busy.
        time.sleep(0.01)
    return True
