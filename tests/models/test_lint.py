"""What `check` says of an archive, and that it runs nothing of it."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest

from mmserve.models.lint import check
from tests.models import archives


def archive_of(place: Path, files: dict[str, bytes | str], name: str = "churn-acme.tar.gz") -> Path:
    members = (
        archives.regular(path, content.encode() if isinstance(content, str) else content)
        for path, content in files.items()
    )
    return archives.write_tar(place / name, *members)


def test_a_sound_archive_has_no_errors(tmp_path: Path) -> None:
    report = check(
        archive_of(tmp_path, {"model.joblib": b"12345", "serving.properties": "engine=Python\noption.method=x\n"})
    )
    assert report.errors == []
    assert report.remarks == ["the model is model.joblib", "2 files, 35 bytes unpacked"]


@pytest.mark.parametrize(
    ("files", "model"),
    [
        (["model.joblib", "scaler.pkl"], "model.joblib"),
        (["model.pkl", "scaler.joblib"], "model.pkl"),
        (["model.pkl", "model.joblib", "model.skops"], "model.joblib"),
        (["churn.skops", "notes.txt"], "churn.skops"),
        (["churn.pickle", "old/model.joblib"], "churn.pickle"),
        (["README.md", "artifacts/churn.pkl"], "artifacts/churn.pkl"),
        (["README.md", "a/model.pkl", "a/scaler.pkl"], "a/model.pkl"),
        (["model.joblib", "._model.joblib", "__MACOSX/._model.joblib"], "model.joblib"),
        (["README.md", "a/model.joblib", "__MACOSX/model.joblib", ".git/x.pkl"], "a/model.joblib"),
    ],
)
def test_the_file_that_would_be_loaded_is_named(tmp_path: Path, files: list[str], model: str) -> None:
    report = check(archive_of(tmp_path, dict.fromkeys(files, b"x")))
    assert report.errors == []
    assert f"the model is {model}" in report.remarks


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["README.md"], "no model file: expected model.joblib, or one file ending in .*"),
        (["a.joblib", "b.pkl"], r"2 model files \(a.joblib, b.pkl\): name the one to load model.joblib"),
        ([f"{i}.pkl" for i in range(9)], r"9 model files \(0.pkl, 1.pkl, 2.pkl, 3.pkl, 4.pkl, ...\): .*"),
        (["x", "a/model.pkl", "b/model.pkl"], r"2 model files \(a/model.pkl, b/model.pkl\): .*"),
    ],
)
def test_a_guess_which_file_is_the_model_is_an_error_without_code_and_a_remark_with_it(
    tmp_path: Path, files: list[str], message: str
) -> None:
    content: dict[str, bytes | str] = dict.fromkeys(files, b"x")
    (error,) = check(archive_of(tmp_path, content)).errors
    report = check(archive_of(tmp_path, {**content, "model.py": "x = 1"}))
    assert report.errors == []
    assert error == report.remarks[0]

    assert re.fullmatch(message, error)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model.py": "def handle(inputs): ..."}, "handle(inputs) of model.py, as in DJL Serving"),
        (
            {"model.py": "def answer(inputs): ...", "serving.properties": "option.handler=answer"},
            "answer(inputs) of model.py, as in DJL Serving",
        ),
        ({"model.py": "def handle(data, context): ..."}, "the handler model.py:handle, as in Multi Model Server"),
        (
            {"MAR-INF/MANIFEST.json": '{"model": {"handler": "service:run"}}', "service.py": "def run(a, b): ..."},
            "the handler service:run, as in Multi Model Server",
        ),
        (
            {"code/inference.py": "def model_fn(directory): ...", "weights": b"x"},
            "the functions of code/inference.py, as in SageMaker's containers",
        ),
    ],
)
def test_code_that_needs_no_model_file_is_remarked_and_nothing_is_missed(
    tmp_path: Path, files: dict[str, bytes | str], said: str
) -> None:
    report = check(archive_of(tmp_path, files))
    assert report.errors == []
    assert report.remarks[0] == f"it is called by {said}"
    assert not [remark for remark in report.remarks if "model file" in remark]


def test_an_empty_model_is_an_error(tmp_path: Path) -> None:
    assert check(archive_of(tmp_path, {"model.joblib": b""})).errors == ["model.joblib is empty"]


def test_unknown_keys_are_remarked_with_what_may_be_meant(tmp_path: Path) -> None:
    report = check(archive_of(tmp_path, {"model.pkl": b"x", "serving.properties": "batchsize=8\nfoo=1\n"}))
    assert report.errors == []
    assert report.remarks[:2] == [
        "serving.properties: the key 'batchsize' is not known, is batch_size meant?",
        "serving.properties: the key 'foo' is not known",
    ]


@pytest.mark.parametrize(
    ("config", "errors", "remarks"),
    [
        ("useVenv: true", [], ["model-config.yaml: useVenv has no effect: a model whose requirements"]),
        ("deviceType: gpu", ["model-config.yaml: deviceType=gpu is refused: a model runs on CPUs"], []),
        ("batchSize: no", ["model-config.yaml: batchSize is 'false', expected a whole number"], []),
        ("- x", ["config.yaml does not consist of keys and values"], []),
    ],
)
def test_the_configuration_that_a_manifest_names_is_checked(
    tmp_path: Path, config: str, errors: list[str], remarks: list[str]
) -> None:
    manifest = '{"model": {"handler": "service:handle", "configFile": "config.yaml"}}'
    files: dict[str, bytes | str] = {"MAR-INF/MANIFEST.json": manifest, "service.py": "x = 1", "config.yaml": config}
    report = check(archive_of(tmp_path, files))
    for expected, found in (errors, report.errors), (remarks, [r for r in report.remarks if ".yaml" in r]):
        assert len(found) == len(expected)
        assert all(map(str.startswith, found, expected))


def test_keys_without_effect_are_remarked(tmp_path: Path) -> None:
    report = check(archive_of(tmp_path, {"model.pkl": b"x", "serving.properties": "gpu.maxWorkers=1\n"}))
    assert report.remarks[0].startswith("serving.properties: gpu.maxWorkers has no effect: ")


@pytest.mark.parametrize(
    ("properties", "error"),
    [
        (b"batch_size=many", "serving.properties: batch_size is 'many', expected a whole number from 1 to 10000"),
        (b"minWorkers=3\nmaxWorkers=2", "serving.properties: minWorkers is '3', expected a whole number from 0 to 2"),
        (
            b"engine=PyTorch",
            "serving.properties: engine=PyTorch is refused: there is no such engine (except Python, "
            "XGBoost, LightGBM, OnnxRuntime, which the files tell apart)",
        ),
        (
            b"option.env=A",
            "serving.properties: option.env is 'A', expected NAME=VALUE, with a comma between two of them",
        ),
        (b"a=1\nb=\0", "serving.properties, line 2: a NUL byte"),
        (
            b"option.entryPoint=serve.py",
            "serving.properties: option.entryPoint is 'serve.py', which is not in the archive",
        ),
    ],
)
def test_bad_properties_are_errors(tmp_path: Path, properties: bytes, error: str) -> None:
    assert check(archive_of(tmp_path, {"model.pkl": b"x", "serving.properties": properties})).errors == [error]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def handle(inputs):\nreturn None", "model.py, line 2: expected an indented block"),
        ("x = 1\nreturn 2", "model.py, line 2: 'return' outside function"),
        ("x = '\0'", "model.py"),
        (b"x = '\xff'", "model.py"),
        ("-" * 100_000 + "1", "model.py"),
    ],
)
def test_code_that_does_not_compile_is_an_error(tmp_path: Path, code: bytes | str, error: str) -> None:
    (said,) = check(archive_of(tmp_path, {"model.pkl": b"x", "model.py": code})).errors
    assert said.startswith(error)
    assert "\n" not in said


@pytest.mark.parametrize(("entry_point", "file"), [("serve.py", "serve.py"), ("own.serve", "own/serve.py")])
def test_the_code_that_is_the_entry_point_is_compiled_and_may_do_without_a_model(
    tmp_path: Path, entry_point: str, file: str
) -> None:
    files: dict[str, bytes | str] = {"serving.properties": f"option.entryPoint={entry_point}", file: "x = 1"}
    assert check(archive_of(tmp_path, files)).errors == []
    assert check(archive_of(tmp_path, {**files, file: "x ="})).errors == [f"{file}, line 1: invalid syntax"]


def test_an_entry_point_of_the_server_is_no_code_of_the_model(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"serving.properties": "option.entryPoint=djl_python.sklearn_handler"}
    assert check(archive_of(tmp_path, {**files, "model.pkl": b"x"})).errors == []
    assert len(check(archive_of(tmp_path, files)).errors) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"inference.py": "def model_fn(directory): pass"},
        {"code/inference.py": "def transform_fn(model, body, content_type, accept): pass", "weight.txt": "1"},
        {"service.py": "x = 1", "MAR-INF/MANIFEST.json": '{"model": {"handler": "service.py:handle"}}'},
        {"service.py": "x = 1", "serving.properties": "option.handler=service.py:handle"},
    ],
)
def test_code_of_every_contract_may_do_without_a_model(tmp_path: Path, files: dict[str, bytes | str]) -> None:
    assert check(archive_of(tmp_path, files)).errors == []
    code = next(iter(files))
    assert check(archive_of(tmp_path, {**files, code: "x ="})).errors == [f"{code}, line 1: invalid syntax"]


def test_an_inference_py_that_is_only_a_helper_does_not_stand_for_a_model(tmp_path: Path) -> None:
    (error,) = check(archive_of(tmp_path, {"inference.py": "class Helper: pass"})).errors
    assert error.startswith("no model file")


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        ("{", "MAR-INF/MANIFEST.json is not JSON"),
        ('{"model": {"handler": "service.py"}}', "the handler is 'service.py', which is not in the archive"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_an_error(tmp_path: Path, manifest: str, error: str) -> None:
    files: dict[str, bytes | str] = {"MAR-INF/MANIFEST.json": manifest, "weight.txt": "1"}
    (said,) = check(archives.write_zip(tmp_path / "a.mar", *((k, str(v).encode()) for k, v in files.items()))).errors
    assert said.startswith(error)


def test_nothing_of_the_archive_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    code = f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\nx = '\\d'\n"
    report = check(archive_of(tmp_path, {"model.pkl": pickle.dumps(Trap()), "model.py": code}))
    assert report.errors == []
    assert not (tmp_path / "sprung").exists()


def test_requirements_are_remarked(tmp_path: Path) -> None:
    report = check(archive_of(tmp_path, {"model.pkl": b"x", "requirements.txt": "numpy"}))
    assert "requirements.txt asks for packages of the model's own" in report.remarks


def test_an_archive_that_is_not_safe_is_an_error(tmp_path: Path) -> None:
    assert check(archive_of(tmp_path, {"../x": b""})).errors == ["'../x' leads out of its directory with '..'"]


@pytest.mark.parametrize("name", ["a%b.tar.gz", "-x.tgz", "n" * 201 + ".tar", "model"])
def test_a_name_that_no_model_can_have_is_an_error(tmp_path: Path, name: str) -> None:
    errors = check(archive_of(tmp_path, {"model.pkl": b"x"}, name)).errors
    rule = "archives end in one of .tar.gz" if name == "model" else "names have letters"
    assert [error.startswith(f"{name!r} gives no valid model name: {rule}") for error in errors] == [True]


def test_nothing_stays_of_what_was_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    check(archive_of(tmp_path, {"model.pkl": b"x"}))
    check(archive_of(tmp_path, {"../x": b"x"}))
    assert list(place.iterdir()) == []
