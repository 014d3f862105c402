"""Models whose answers a test holds back until it lets them go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models_for_tests import write_model
from tests.servers import wait_until

_CODE = """
import os, time
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    name = inputs.get_as_string()
    open({directory!r} + "/held-" + name, "w").close()
    while not os.path.exists({directory!r} + "/let-" + name):
        time.sleep(0.002)
    return Output().add(name)
"""


class Gate:
    """A request whose body is a name is held until `let` says that name; its answer is the name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def write_model(self, directory: Path, properties: str = "") -> Path:
        code = _CODE.format(directory=str(self.directory))
        return write_model(directory, files={"model.py": code, "serving.properties": properties})

    def wait_for(self, name: str) -> None:
        """Until a worker holds the request of this name."""
        wait_until((self.directory / f"held-{name}").exists, f"a worker to take the request {name}")

    def holds(self, name: str) -> bool:
        return (self.directory / f"held-{name}").exists()

    def let(self, *names: str) -> None:
        for name in names:
            (self.directory / f"let-{name}").touch()


@pytest.fixture(scope="module")
def module_gate(tmp_path_factory: pytest.TempPathFactory, http: str) -> Gate:
    """As the fixture `gate`, for modules whose tests share a server: new with each way of HTTP, as the server is."""
    return Gate(tmp_path_factory.mktemp(f"held-{http}") / "gate")
