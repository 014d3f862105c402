"""Which file of a directory is the model, and what is said where the library for it is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmserve_worker import handlers
from mmserve_worker.calls import ModelSpec
from mmserve_worker.handlers.errors import LoadError
from mmserve_worker.handlers.files import is_model, model_file

XGBOOST = '{"learner":{"attributes":{}}}'
LIGHTGBM = "tree\nversion=v4\n"


def directory_of(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({"churn.json": XGBOOST, "config.json": '{"learner_rate": 1}', "requirements.txt": "tree\t"}, "churn.json"),
        ({"model.json": f"\n {XGBOOST}", "other.json": XGBOOST}, "model.json"),
        ({"model.json": '{"version":[1,0,0],"learner":{}}'}, "model.json"),
        ({"forest.txt": LIGHTGBM.replace("\n", "\r\n"), "README.txt": "trees\n", "notes.txt": ""}, "forest.txt"),
        ({"model.json": '{"name": "churn"}', "churn.pkl": "x"}, "churn.pkl"),
        ({"model.txt": LIGHTGBM, "model.json": XGBOOST, "model.onnx": "x", "model.joblib": "x"}, "model.joblib"),
        ({"xgboost-model": "x", "encoder.pkl": "x"}, "xgboost-model"),
        ({"xgboost-model": "x", "model.pkl": "x", "xgboost-model.log": "x"}, "model.pkl"),
        ({"export/xgboost-model": "x", "config.json": "{}"}, "export/xgboost-model"),
        ({"config.json": "{}", "export/net.onnx": "x"}, "export/net.onnx"),
    ],
)
def test_json_and_text_are_models_by_what_they_begin_with(tmp_path: Path, files: dict[str, str], chosen: str) -> None:
    assert model_file(directory_of(tmp_path, files)) == tmp_path / chosen


@pytest.mark.parametrize(
    ("model_format", "chosen"),
    [("json", "a.json"), ("xgb", "b.bst"), ("skops", "d.skops"), ("joblib", "c.joblib"), ("txt", "e.txt")],
)
def test_the_format_can_be_said(tmp_path: Path, model_format: str, chosen: str) -> None:
    files = {"a.json": XGBOOST, "b.bst": "x", "c.joblib": "x", "d.skops": "x", "e.txt": LIGHTGBM}
    directory = directory_of(tmp_path, files)
    with pytest.raises(LookupError, match="5 model files"):
        model_file(directory)
    assert model_file(directory, {"option.model_format": model_format}).name == chosen
    with pytest.raises(LookupError, match=r"expected model\.onnx, or one file ending in one of \.onnx"):
        model_file(directory, {"option.model_format": "onnx"})
    with pytest.raises(LookupError, match=r"option\.model_format is torch: there is joblib, "):
        model_file(directory, {"option.model_format": "torch"})


def test_the_name_can_be_said(tmp_path: Path) -> None:
    directory = directory_of(tmp_path, {"churn.pkl": "x", "model.pkl": "x"})
    assert model_file(directory).name == "model.pkl"
    assert model_file(directory, {"option.modelName": "churn"}).name == "churn.pkl"


def test_what_cannot_be_read_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "model.json").mkdir()
    assert not is_model(tmp_path / "gone.json")
    assert not is_model(tmp_path / "model.json")


@pytest.mark.parametrize(
    ("file", "module", "extra"),
    [
        ("model.json", "xgboost", "xgboost"),
        ("model.txt", "lightgbm", "lightgbm"),
        ("model.onnx", "onnxruntime", "onnx"),
        ("model.skops", "skops.io", "skops"),
    ],
)
def test_a_missing_library_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, module: str, extra: str
) -> None:
    directory_of(tmp_path, {file: {".json": XGBOOST, ".txt": LIGHTGBM}.get(Path(file).suffix, "x")})
    monkeypatch.setitem(sys.modules, module, None)
    package = module.partition(".")[0]
    with pytest.raises(LoadError) as raised:
        handlers.load(ModelSpec("the-model", str(tmp_path)))
    assert str(raised.value) == f"{file} needs {package}, which is not installed: pip install 'mmserve[{extra}]'"
    monkeypatch.setitem(sys.modules, "mmserve", None)
    with pytest.raises(LoadError) as raised:
        handlers.load(ModelSpec("the-model", str(tmp_path)))
    assert (
        str(raised.value)
        == f"{file} needs {package}, which is not installed: add {package} to the model's requirements.txt"
    )
