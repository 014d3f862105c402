"""What an archive holds decides how it is served, in an order that is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmserve_worker.handlers.contracts import Contract, Decision, decide, may_have_code

DJL, SAGEMAKER, MMS, MODEL_FILE = Contract.DJL, Contract.SAGEMAKER, Contract.MMS, Contract.MODEL_FILE
INPUTS, DATA = "def handle(inputs): pass", "def handle(data, context): pass"
MANIFEST = '{"model": {"handler": "service:handle"}}'


def decided(directory: Path, files: dict[str, str], **options: str) -> Decision:
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    said = {f"option.{name}": value for name, value in options.items()}
    decision = decide(directory, said)
    # The front, which does not look into files, may take more for code but never less.
    assert decision.contract is MODEL_FILE or may_have_code(directory, said)
    return decision


@pytest.mark.parametrize(
    ("files", "contract"),
    [
        ({}, MODEL_FILE),
        ({"model.joblib": "x", "other.py": INPUTS}, MODEL_FILE),
        ({"model.py": INPUTS}, DJL),
        ({"model.py": DATA}, MMS),
        ({"model.py": "x = 1"}, DJL),
        ({"model.py": "def handle(: no python"}, DJL),
        ({"model.py": "from service import handle"}, DJL),
        ({"model.py": "handle = make_it()"}, DJL),
        ({"model.py": "async def handle(inputs): pass"}, DJL),
        ({"model.py": "def model_fn(directory): pass"}, SAGEMAKER),
        ({"model.py": INPUTS, "inference.py": "def model_fn(d): pass"}, DJL),
        ({"inference.py": "def predict_fn(data, model): pass"}, SAGEMAKER),
        ({"inference.py": "from own.functions import model_fn, input_fn"}, SAGEMAKER),
        ({"inference.py": "from own.functions import *"}, SAGEMAKER),
        (
            {"inference.py": "try:\n    import x\nexcept ImportError:\n    pass\nelse:\n    model_fn = x.load"},
            SAGEMAKER,
        ),
        ({"inference.py": "def model_fn(: no python"}, SAGEMAKER),
        ({"inference.py": DATA}, MMS),
        ({"inference.py": INPUTS}, DJL),
        ({"inference.py": "class Helper: pass"}, MODEL_FILE),
        ({"code/inference.py": "def model_fn(d): pass"}, SAGEMAKER),
        ({"MAR-INF/MANIFEST.json": MANIFEST, "model.py": INPUTS, "inference.py": "def model_fn(d): pass"}, MMS),
        ({"MAR-INF/MANIFEST.json": "{}", "model.py": INPUTS}, DJL),
    ],
)
def test_files_decide(tmp_path: Path, files: dict[str, str], contract: Contract) -> None:
    assert decided(tmp_path, files).contract is contract


@pytest.mark.parametrize(
    ("files", "options", "contract"),
    [
        ({"MAR-INF/MANIFEST.json": MANIFEST, "own.py": INPUTS}, {"entryPoint": "own.py"}, DJL),
        ({"own.py": "def model_fn(d): pass"}, {"entryPoint": "own.py"}, SAGEMAKER),
        ({"own/it.py": DATA}, {"entryPoint": "own.it"}, MMS),
        # Which looks into it for functions that are decorated as parts of the built-in handler.
        ({"model.py": INPUTS}, {"entryPoint": "djl_python.sklearn_handler"}, DJL),
        ({"model.joblib": "x"}, {"entryPoint": "djl_python.sklearn_handler"}, MODEL_FILE),
        ({"model.py": "def predict_fn(d, m): pass"}, {"entryPoint": "djl_python.sklearn_handler"}, SAGEMAKER),
        ({"model.py": "def answer_it(inputs): pass"}, {"handler": "answer_it"}, DJL),
        ({"model.py": "def answer_it(data, context): pass"}, {"handler": "answer_it"}, MMS),
        ({"model.py": INPUTS, "service.py": DATA}, {"handler": "service:handle"}, MMS),
        ({"model.py": INPUTS, "service.py": DATA}, {"handler": "service.py"}, MMS),
        ({"service.py": DATA}, {"handler": "service"}, MMS),
        ({"model.joblib": "x"}, {"handler": "handle"}, MODEL_FILE),
    ],
)
def test_options_go_before_files(
    tmp_path: Path, files: dict[str, str], options: dict[str, str], contract: Contract
) -> None:
    assert decided(tmp_path, files, **options).contract is contract


def test_the_servers_own_handlers_are_no_code_of_the_model(tmp_path: Path) -> None:
    said = {"option.entryPoint": "djl_python.xgboost_handler"}
    assert not may_have_code(tmp_path, said)
    (tmp_path / "model.py").write_text("def predict_fn(data, model): pass")
    assert may_have_code(tmp_path, said)
