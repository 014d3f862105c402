"""Reads TorchServe's model-config.yaml, which the manifest of a model archive names: which keys are honoured, and which
are refused.

All of it is for the model's code as well (`context.model_yaml_config`), which gets it as JSON: workers run where there
may be no library for YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmserve.models import key_table
from mmserve.models.key_table import honoured, no_effect, refused
from mmserve.models.settings import ModelSettings, model_settings
from mmserve_worker.handlers import contracts

FILE_NAME = "model-config.yaml"

# Larger than any file written by hand. The parser, which is slow and no friend of the event loop's, takes half a second
# for as much.
MAX_BYTES = 1 << 14

# As serving.properties calls what these keys say, and by which of our settings that is known.
_PROPERTIES = {
    "minWorkers": "minWorkers",
    "maxWorkers": "maxWorkers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay",
    "jobQueueSize": "job_queue_size",
    "responseTimeout": "option.predict_timeout",
    "startupTimeout": "option.model_loading_timeout",
}
_SETTINGS = {
    "min_workers": ("minWorkers",),
    "max_workers": ("maxWorkers",),
    "batch_size": ("batchSize",),
    "max_batch_delay_ms": ("maxBatchDelay",),
    "job_queue_size": ("jobQueueSize",),
    "predict_timeout": ("responseTimeout",),
    "model_loading_timeout": ("startupTimeout",),
}

_ONE_CPU = "a model runs on CPUs, each worker on its own"
_ONE_BATCH = "a worker answers one batch at a time, more workers answer more"
_NO_SEQUENCES = "requests do not belong to sequences"

TABLE = (
    *(honoured(name, f"`{key}`") for name, key in _PROPERTIES.items()),
    refused("deviceType", _ONE_CPU, "", "cpu"),
    refused("parallelType", _ONE_CPU, ""),
    refused("parallelLevel", _ONE_CPU, "1"),
    refused("torchrun", _ONE_CPU),
    refused("continuousBatching", _ONE_BATCH, "false"),
    refused("asyncCommunication", _ONE_BATCH, "false"),
    refused("sequenceBatching", _NO_SEQUENCES, "false"),
    no_effect("deviceIds", _ONE_CPU),
    no_effect("sequenceMaxIdleMSec", _NO_SEQUENCES),
    no_effect("sequenceTimeoutMSec", _NO_SEQUENCES),
    no_effect("maxNumSequence", _NO_SEQUENCES),
    no_effect("maxSequenceJobQueueSize", _NO_SEQUENCES),
    no_effect("maxRetryTimeoutInSec", "a model that has failed is tried again after a while, for ever"),
    no_effect("clientTimeoutInMills", "`request_timeout`, a setting of the server, bounds it"),
    no_effect("useJobTicket", "requests wait for a worker, up to `jobQueueSize` of them"),
    no_effect("useVenv", "a model whose requirements are others has an environment of its own anyway"),
)
_BY_NAME = {key.name: key for key in TABLE}


class ModelConfigError(ValueError):
    """A model-config.yaml that cannot be read, in a sentence for the model's owner."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What one file says: the `properties` are for those that serving.properties does not say, by its names."""

    properties: Mapping[str, str] = field(default_factory=dict)
    settings: ModelSettings = field(default_factory=ModelSettings)
    remarks: tuple[str, ...] = ()


def read(directory: Path) -> ModelConfig:
    """Blocks. Of a directory without such a file, nothing. Raises ModelConfigError, RefusedKey, SettingError,
    ManifestError or OSError."""
    file = _file(directory)
    if file is None:
        return ModelConfig()
    said = _parsed(file)
    texts = {key: _text(value) for key, value in said.items() if key in _BY_NAME and value is not None}
    key_table.check(_BY_NAME, texts)
    honoured_texts = {key: text for key, text in texts.items() if key in _PROPERTIES}
    try:
        as_json = json.dumps(said, default=str)
    except (TypeError, ValueError) as error:
        raise ModelConfigError(f"{FILE_NAME} cannot be given to the model's code: {error}") from error
    return ModelConfig(
        {**{_PROPERTIES[key]: text for key, text in honoured_texts.items()}, contracts.MODEL_CONFIG: as_json},
        model_settings(honoured_texts, _SETTINGS),
        tuple(key_table.remarks(_BY_NAME, texts)),
    )


def markdown() -> str:
    """The tables of keys as the documentation has them."""
    lines = ["| key | as in serving.properties |", "|---|---|"]
    lines += [f"| `{name}` | `{key}` |" for name, key in _PROPERTIES.items()]
    return "\n".join([*lines, "", "| key | | why |", "|---|---|---|", *key_table.without_effect(TABLE)])


def _file(directory: Path) -> Path | None:
    """Where the manifest says it is; most models have none."""
    named = contracts.manifest(directory).get("model", {}).get("configFile")
    if not named:
        return None
    file = directory / str(named)
    if "\0" in str(named) or not file.resolve().is_relative_to(directory.resolve()) or not file.is_file():
        raise ModelConfigError(f"{contracts.MANIFEST}: the configFile {named!r} is not in the archive")
    return file


def _parsed(file: Path) -> dict[Any, Any]:
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ModelConfigError(f"{file.name} has more than {MAX_BYTES} bytes")
    try:
        # A few lines of aliases stand for more than fits into any memory.
        for event in yaml.parse(content, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ModelConfigError(f"{file.name} has an alias (*{event.anchor}), which is not read")
        said = yaml.safe_load(content)
    except ModelConfigError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ModelConfigError(f"{file.name} is not YAML: {' '.join(str(error).split())}") from error
    if said is not None and not isinstance(said, dict):
        raise ModelConfigError(f"{file.name} does not consist of keys and values")
    return said or {}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
