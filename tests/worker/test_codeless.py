"""A process that is to run no code of a model's does not, whatever asks it to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import skops.io

from tests import models_for_tests as models


def in_codeless_process(directory: Path, statement: str) -> str:
    """What a statement prints in such a process, or the error that it raises."""
    code = f"""
import pickle, sys
from mmserve_worker import codeless, handlers
from mmserve_worker.calls import Call, ModelSpec
spec = ModelSpec("m", {str(directory)!r})
sys.path.insert(0, spec.directory)
codeless.forbid(spec.directory)
try:
    {statement}
except Exception as error:
    print(getattr(error, "error_type", type(error).__name__), error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        ({}, "a pickle that names sklearn.linear_model"),
        ({"model.py": "def handle(inputs): print('run')"}, r"model\S* is refused"),
    ],
)
def test_no_handler_loads_a_pickle_or_code(tmp_path: Path, files: dict[str, str], refused: str) -> None:
    models.write_model(tmp_path, models.linear(), files)
    said = in_codeless_process(tmp_path, "handlers.load(spec)")
    assert re.search(rf"trust is skops-only, and {refused}", said), said


def test_a_module_of_the_model_cannot_be_imported(tmp_path: Path) -> None:
    models.write_model(tmp_path, None, {"helper.py": "print('run')"})
    assert re.search(r"UntrustedModel .*helper\S* is refused", in_codeless_process(tmp_path, "import helper"))


@pytest.mark.parametrize("directory", ["model", "link"])
def test_a_module_that_a_link_leads_to_cannot_be_imported(tmp_path: Path, directory: str) -> None:
    models.write_model(tmp_path / "beside", None, {"helper.py": "print('run')"})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "parts").symlink_to("../beside")
    (tmp_path / "link").symlink_to("model")
    said = in_codeless_process(tmp_path / directory, "from parts import helper")
    assert re.search(r"UntrustedModel .*helper\S* is refused", said), said


def test_a_module_that_was_compiled_cannot_be_imported(tmp_path: Path) -> None:
    models.write_model(tmp_path, None, {"helper.py": "print('run')"})
    subprocess.run([sys.executable, "-m", "compileall", "-b", "-q", str(tmp_path)], check=True, timeout=30)
    (tmp_path / "helper.py").unlink()
    assert "helper.pyc is refused" in in_codeless_process(tmp_path, "import helper")


def test_a_model_without_code_is_served(tmp_path: Path) -> None:
    skops.io.dump(models.linear(), tmp_path / "model.skops")
    said = in_codeless_process(tmp_path, "print(handlers.load(spec).answer([Call(b'[[1.0]]')])[0].status)")
    assert said == "200\n"
