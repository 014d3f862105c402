"""The rooms of the code and who may know of whom (the arrows point one way)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    path.parent.name if path.name == "__init__.py" else path.stem
    for path in (*(ROOT / "mmserve").glob("*.py"), *(ROOT / "mmserve").glob("*/__init__.py"))
} - {"mmserve"}

# What each room of the front may import of the front; what is not named here may be imported by anybody.
LEAVES = {"backoff", "errors"}
ALLOWED = {
    "backoff": set[str](),
    "errors": set[str](),
    "config": {"expected", "foreign", "misspelt", "models"},
    "expected": set[str](),
    "foreign": {"models"},
    "misspelt": set[str](),
    "runfile": set[str](),
    "models": set[str](),
    "observability": set[str](),
    "supervision": {"models", "observability"},
    "scheduling": {"models", "observability", "supervision"},
    "operations": {"models", "observability", "scheduling", "supervision"},
    "freshness": {"models", "observability", "operations", "scheduling", "supervision"},
    "http": {"config", "freshness", "models", "observability", "operations", "scheduling", "supervision"},
    "defaults": {"config", "models", "supervision"},
    "overview": {"models", "observability", "scheduling", "supervision"},
    "server": {
        "config",
        "defaults",
        "freshness",
        "http",
        "models",
        "observability",
        "operations",
        "overview",
        "runfile",
        "scheduling",
        "supervision",
    },
    "cli": {"config", "models", "runfile", "server", "supervision"},
    "__main__": {"cli"},
}
# Who may know the worker's side: what of it both sides use, the channel and the frames in it.
KNOW_WORKERS = {
    "supervision": {"channel", "control", "generation"},
    "scheduling": {"batch", "calls", "channel"},
    "models": {"handlers.contracts", "handlers.files"},
}
# What is imported where it is needed, because a worker may run where it is missing.
WORKER_LIBRARIES = {"numpy"}


def imports(file: Path, *, top_level: bool = False) -> Iterator[str]:
    """The modules that a file imports, `from a import b` as a.b."""
    tree = ast.parse(file.read_text(), str(file))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide where the arrow points"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(package: Path) -> list[Path]:
    found = sorted(package.rglob("*.py"))
    assert found
    return found


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "mmserve").parts[0].removesuffix(".py")


def test_every_room_has_its_arrows() -> None:
    known = {"__init__", "__main__", *ALLOWED}
    assert {room_of(file) for file in modules(ROOT / "mmserve")} <= known


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_those_below_it(room: str) -> None:
    allowed = {room} | ALLOWED[room] | LEAVES
    for file in modules(ROOT / "mmserve"):
        if room_of(file) == room:
            for name in imports(file):
                package, _, rest = name.partition(".")
                if package == "mmserve" and (target := rest.partition(".")[0]) in ROOMS:
                    assert target in allowed, f"{file} imports {name}"


def test_the_front_knows_of_workers_only_what_both_sides_use() -> None:
    for file in modules(ROOT / "mmserve"):
        for name in imports(file):
            package, _, module = name.partition(".")
            if package == "mmserve_worker":
                allowed = KNOW_WORKERS.get(room_of(file), set())
                assert any(module == known or module.startswith(f"{known}.") for known in allowed), f"{file}: {name}"


def test_workers_know_nothing_of_the_front() -> None:
    for file in modules(ROOT / "workers"):
        assert not [name for name in imports(file) if name.partition(".")[0] == "mmserve"], file


def test_workers_need_the_standard_library_and_numpy_alone() -> None:
    ours = sys.stdlib_module_names | WORKER_LIBRARIES | {"mmserve_worker"}
    for file in modules(ROOT / "workers"):
        for name in imports(file, top_level=True):
            assert name.partition(".")[0] in ours, f"{file} imports {name}"


def test_models_know_nothing_of_processes_or_the_event_loop_of_http() -> None:
    strangers = {"aiohttp", "multiprocessing", "subprocess", "signal", "uvloop"}
    for file in modules(ROOT / "mmserve" / "models"):
        assert not strangers & {name.partition(".")[0] for name in imports(file)}, file


def loaded_by(module: str) -> set[str]:
    """The top-level modules that importing one brings with it, in a process of its own."""
    code = f"import sys; import {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


def test_the_front_imports_no_library_of_models() -> None:
    assert not loaded_by("mmserve.server") & {"numpy", "scipy", "sklearn", "joblib", "pandas", "s3fs", "botocore"}


def test_commands_do_not_wait_for_the_server_to_be_imported() -> None:
    assert not loaded_by("mmserve.cli") & {"aiohttp", "uvloop", "psutil", "numpy"}


def test_workers_start_without_the_libraries_of_the_front() -> None:
    assert not loaded_by("mmserve_worker.worker") & {"aiohttp", "uvloop", "msgspec", "psutil", "click", "mmserve"}
