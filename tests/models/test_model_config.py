"""What TorchServe's model-config.yaml says of a model: honoured, given to its code, without effect, or refused."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from mmserve.models.archive import ArchiveCache
from mmserve.models.content import prepare
from mmserve.models.key_table import RefusedKey
from mmserve.models.model import Content, Model
from mmserve.models.model_config import MAX_BYTES, ModelConfig, ModelConfigError, read
from mmserve.models.settings import ModelSettings, SettingError
from mmserve.models.source import LocalSource
from mmserve.models.trust import All
from tests.defaults import DEFAULTS

EVERYTHING = """
# What the server reads
minWorkers: 1
maxWorkers: 3
batchSize: 8
maxBatchDelay: 50
responseTimeout: 30
startupTimeout: 90
jobQueueSize: 20
deviceType: "cpu"
useVenv: true
handler:
    threshold: 0.5
    since: 2024-01-02
"""


def write(directory: Path, text: str | bytes, named: object = "model-config.yaml") -> Path:
    (directory / "MAR-INF").mkdir(exist_ok=True)
    manifest = {"model": {"handler": "service:handle", "configFile": named}}
    (directory / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
    (directory / "model-config.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return directory


def prepared(directory: Path, **defaults: str) -> tuple[Model, Content]:
    model = Model("m", LocalSource(directory))
    model.content = prepare(model, ArchiveCache(directory / "cache"), All(), defaults)
    return model, model.content


def test_what_it_says_holds_and_is_there_for_the_models_code(tmp_path: Path) -> None:
    model, content = prepared(write(tmp_path, EVERYTHING))
    settings, sources = model.settings(DEFAULTS), model.sources(DEFAULTS)
    held = (settings.min_workers, settings.max_workers, settings.batch_size, settings.max_batch_delay)
    assert held == (1, 3, 8, 0.05)
    assert (settings.predict_timeout, settings.model_loading_timeout, settings.job_queue_size) == (30.0, 90.0, 20)
    said = ("min_workers", "max_workers", "batch_size", "max_batch_delay", "predict_timeout", "model_loading_timeout",
            "job_queue_size")  # fmt: skip
    assert {sources[name] for name in said} == {"model-config.yaml"}
    assert sources["weight"] == "server"
    config = json.loads(content.options["option.model_yaml_config"])
    assert (config["handler"], config["batchSize"]) == ({"threshold": 0.5, "since": "2024-01-02"}, 8)
    assert content.options["batch_size"] == "8"


def test_it_stands_between_serving_properties_and_what_holds_for_all_models(tmp_path: Path) -> None:
    write(tmp_path, "maxWorkers: 2\nbatchSize: 8\nresponseTimeout: 30")
    (tmp_path / "serving.properties").write_text("cpu.minWorkers=3\nmax_dynamic_batch_size=4\n")
    model, content = prepared(tmp_path, batch_size="2", max_idle_time="9", predict_timeout="7")
    settings, sources = model.settings(DEFAULTS), model.sources(DEFAULTS)
    assert (settings.min_workers, settings.max_workers, sources["max_workers"]) == (3, 3, "serving.properties")
    assert (settings.batch_size, sources["batch_size"]) == (4, "serving.properties")
    assert "batch_size" not in content.options
    assert (settings.predict_timeout, sources["predict_timeout"]) == (30.0, "model-config.yaml")
    assert settings.max_idle_time == 9.0


def test_a_file_that_no_manifest_names_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == ModelConfig()
    write(tmp_path, "batchSize: 8", named=None)
    assert read(tmp_path) == ModelConfig()


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read(write(tmp_path, "# nothing\nbatchSize:\n")).settings == ModelSettings()
    assert read(write(tmp_path, "")).settings == ModelSettings()


def test_what_has_no_effect_is_remarked_with_its_reason(tmp_path: Path) -> None:
    remarks = read(write(tmp_path, "useVenv: true\ndeviceIds: [0, 1]\nhandler: {useVenv: 1}")).remarks
    assert remarks == (
        "useVenv has no effect: a model whose requirements are others has an environment of its own anyway",
        "deviceIds has no effect: a model runs on CPUs, each worker on its own",
    )


@pytest.mark.parametrize(
    ("error", "text", "reason"),
    [
        # What a model would miss.
        (RefusedKey, "deviceType: gpu", "deviceType=gpu is refused: a model runs on CPUs"),
        (RefusedKey, "parallelType: pp", "parallelType=pp is refused"),
        (RefusedKey, "parallelLevel: 4", "parallelLevel=4 is refused: .*except 1"),
        (RefusedKey, "torchrun: {nproc-per-node: 4}", "torchrun=.* is refused"),
        (RefusedKey, "continuousBatching: true", "continuousBatching=true is refused: .* one batch at a time"),
        (RefusedKey, "asyncCommunication: yes", "asyncCommunication=true is refused"),
        (RefusedKey, "sequenceBatching: true", "sequenceBatching=true is refused"),
        # What cannot be meant, by the file's own names.
        (SettingError, "batchSize: many", "batchSize is 'many', expected a whole number from 1"),
        (SettingError, "minWorkers: 4\nmaxWorkers: 2", "minWorkers is '4', expected a whole number from 0 to 2"),
        (SettingError, "responseTimeout: [1]", "responseTimeout is .*, expected a number of seconds"),
        # What is no such file.
        (ModelConfigError, "a: [", "model-config.yaml is not YAML"),
        (ModelConfigError, b"\xff\xfe\x00", "model-config.yaml is not YAML"),
        (ModelConfigError, "[" * 5_000, "model-config.yaml is not YAML"),
        (ModelConfigError, "- 1", "does not consist of keys and values"),
        (ModelConfigError, "handler: !!python/object/apply:os.system [ls]", "YAML: could not determine a constructor"),
        (ModelConfigError, "a: &a [x]\nb: [*a, *a]", r"has an alias \(\*a\)"),
        (ModelConfigError, "? 2024-01-02\n: 1", "cannot be given to the model's code"),
        (ModelConfigError, "a: " + "x" * MAX_BYTES, f"has more than {MAX_BYTES} bytes"),
    ],
    ids=count(),
)
def test_what_cannot_hold_is_refused_by_name(
    tmp_path: Path, error: type[ValueError], text: str | bytes, reason: str
) -> None:
    with pytest.raises(error, match=reason):
        read(write(tmp_path, text))


@pytest.mark.parametrize("named", ["none.yaml", "../outside.yaml", "/etc/hostname", "a\0b", 3])
def test_only_a_file_of_the_archive_is_read(tmp_path: Path, named: object) -> None:
    (tmp_path / "outside.yaml").touch()
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelConfigError, match="is not in the archive"):
        read(write(tmp_path / "m", "", named))


def test_a_configuration_that_has_changed_makes_the_model_newer(tmp_path: Path) -> None:
    source = LocalSource(write(tmp_path, "batchSize: 1"))
    before = source.fingerprint()
    (tmp_path / "notes.md").touch()
    assert source.fingerprint() == before
    (tmp_path / "model-config.yaml").write_text("batchSize: 16")
    assert source.fingerprint() != before
