"""Models that ask for packages, which say where they run, and what a server tells of environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tests import models_for_tests as models
from tests.servers import Server
from tests.supervision.coded import ask
from tests.wheels import write_wheel

_CODE = """
import sys
{imports}
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    return Output().add_as_json([sys.prefix, {version}])
"""


# Of an environment that was not made by uv: far more than its directory and its lock take.
_BYTES = 1 << 18


def fill(environment: Path) -> None:
    (environment / "filling").write_bytes(b"x" * _BYTES)


def room_for(environments: int) -> int:
    """Bytes for so many that were filled, and not for one more."""
    return environments * _BYTES + _BYTES // 2


class Ran(NamedTuple):
    """Where a model has run, and what it has found there."""

    prefix: str
    version: str


def write_needy(
    directory: Path, requirements: str, *, module: str = "tiny", has: tuple[str, ...] = ("1.0", "2.0"), more: str = ""
) -> Path:
    """A model that needs a `module`, with wheels of the versions that the archive `has`."""
    version = f"vars({module}).get('VERSION') or vars({module})['__version__']"
    code = _CODE.format(imports=f"import {module}", version=version)
    files = {"model.py": code, "requirements.txt": requirements, "serving.properties": more}
    models.write_model(directory, files=files)
    for version in has:
        write_wheel(directory / "requirements", module, version)
    return directory


def run(server: Server, model: str) -> Ran:
    """Where the model runs; fails the test if it does not."""
    response = ask(server, model)
    assert response.status_code == 200, response.text
    return Ran(*response.json())


def environments(server: Server) -> dict[str, dict[str, Any]]:
    """By their requirements."""
    found = server.management.get("/status").json()["environments"]
    return {", ".join(one["requirements"]): one for one in found}


def told(server: Server, kind: str) -> list[dict[str, Any]]:
    """The events of this kind that concern no model."""
    events = server.management.get("/events", params={"limit": 1000}).json()["events"]
    return [event for event in events if event["kind"] == kind]
