"""The keys of serving.properties: which are honoured, which have no effect, which are refused, and why.

Any other `option.X` is for the model's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mmserve.errors import StartError
from mmserve.models import key_table
from mmserve.models.key_table import Key, Kind, RefusedKey, honoured, no_effect, one_of, refused
from mmserve.models.settings import KEYS_OF_FILES, SettingError, model_settings

# Of a variable of the environment, in `option.env`.
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _has_cpu(value: str) -> bool:
    """A list separated by `;`, of which the CPU is one: workers for the others are none."""
    return bool({part.strip().lower() for part in value.split(";")} & {"*", "-1", "cpu"})


_ENGINES = ("python", "xgboost", "lightgbm", "onnxruntime")
_ONE_CPU = "a model runs on CPUs, each worker on its own"
_MEASURED = "memory is measured, and bounded by `memory_budget` and `max_memory_mb`"
_JAVA = "it is for Java; `model.py` can do the same"
_LANGUAGE_MODELS = "it is for language models"

TABLE = (
    honoured("minWorkers", "workers that always run once the model is loaded; with 0 it sleeps when nobody asks", "0"),
    honoured("maxWorkers", "workers that its traffic may start; 0 or less is the default", "usable CPUs"),
    honoured("cpu.minWorkers", "goes before `minWorkers`"),
    honoured("cpu.maxWorkers", "goes before `maxWorkers`"),
    honoured("max_idle_time", "seconds after which an idle worker above `minWorkers` ends", "60"),
    honoured("batch_size", "requests that one call may answer together", "32; 1 with code of the model's own"),
    honoured("max_dynamic_batch_size", "the same, if `batch_size` is not there"),
    honoured("max_batch_delay", "milliseconds to wait for a batch to fill", "0"),
    honoured("job_queue_size", "requests that may wait; more get 429", "1000"),
    honoured("weight", "share of the CPU against other models, where there is too little of it", "1"),
    honoured("pinned", "`true`: its workers are never evicted to make room in memory", "false"),
    honoured("max_memory_mb", "MiB of its own after which a worker is replaced, between requests", "none"),
    honoured(
        "required_memory_mb",
        "MiB that there has to be room for when a worker starts; others that are idle are evicted for it",
        "0",
    ),
    honoured("option.predict_timeout", "seconds after which a worker that does not answer is replaced", "60"),
    honoured("predict_timeout", "the same, if that is not there"),
    honoured("option.model_loading_timeout", "seconds that a worker has to load the model", "240"),
    honoured("model_loading_timeout", "the same, if that is not there"),
    honoured("option.method", "what is called: `predict`, `predict_proba`, ...", "the first that the model has"),
    Key(
        "option.entryPoint",
        Kind.HONOURED,
        "the file or module of the model's code; not a URL",
        "`model.py`",
    ),
    honoured("option.handler", "the function of the model's code", "`handle`"),
    honoured("option.modelName", "what the model's file is called, without its ending", "`model`"),
    honoured(
        "option.model_format",
        "takes only model files of one format: `joblib`, `pickle`, `cloudpickle`, `skops`, `onnx`, `json`, `ubj`, "
        "`xgb`, `txt`",
        "any",
    ),
    honoured("option.threads", "threads that one call of XGBoost, LightGBM or ONNX Runtime may use", "1"),
    honoured("option.skops_trusted_types", "types that a `.skops` file may hold, separated by commas", "none"),
    honoured("option.default_accept", "what is answered to a request that accepts anything", "JSON"),
    honoured(
        "option.env",
        "`A=b,C=d`: environment variables of the worker, set before the model is loaded; with "
        "`OMP_NUM_THREADS`, its threads in OpenMP",
        "none",
    ),
    Key(
        "engine",
        Kind.REFUSED,
        "there is no such engine",
        "",
        one_of("", *_ENGINES)[0],
        "`Python`, `XGBoost`, `LightGBM`, `OnnxRuntime`, which the files tell apart",
    ),
    Key("load_on_devices", Kind.REFUSED, _ONE_CPU, "", _has_cpu, "`*`, `-1` or `cpu` is among them"),
    refused("option.pythonExecutable", "workers run in the Python of mmserve or of the model's environment"),
    refused("option.async_mode", "a worker answers one batch at a time, more workers answer more", "", "false"),
    refused("option.mpi_mode", _ONE_CPU, "", "false"),
    refused("option.tensor_parallel_degree", _ONE_CPU, "", "1"),
    refused("option.pipeline_parallel_degree", _ONE_CPU, "", "1"),
    refused("option.rolling_batch", _LANGUAGE_MODELS, "", "disable"),
    refused("option.enable_lora", _LANGUAGE_MODELS, "", "false"),
    refused("option.model_id", "a model's files are in its archive, not on a hub"),
    refused("translator", _JAVA),
    refused("translatorFactory", _JAVA),
    no_effect("application", _JAVA),
    no_effect("batchifier", _JAVA),
    no_effect("option.max_rolling_batch_size", _LANGUAGE_MODELS),
    no_effect("option.enable_venv", "a model whose requirements are others has an environment of its own anyway"),
    no_effect("option.parallel_loading", "workers start side by side anyway"),
    no_effect("option.max_output_size", "`max_request_size` bounds answers as well"),
    no_effect("option.trust_insecure_model_files", "`trust`, a setting of the server, says what may be loaded"),
    no_effect("retry_threshold", "a model that has failed is tried again after a while, for ever"),
    no_effect("log_request_metric", "`GET /metrics` always has them"),
    no_effect("metrics_aggregation", "`GET /metrics` always has them"),
    no_effect("reserved_memory_mb", _MEASURED),
    no_effect("gpu.minWorkers", _ONE_CPU),
    no_effect("gpu.maxWorkers", _ONE_CPU),
    no_effect("gpu.required_memory_mb", _ONE_CPU),
    no_effect("gpu.reserved_memory_mb", _ONE_CPU),
)
BY_NAME = {key.name: key for key in TABLE}
# Variables of the environment have no capitals to tell words apart by.
_BY_LETTERS = {name.replace("_", "").lower(): name for name in BY_NAME}


def check(properties: Mapping[str, str]) -> None:
    """Raises RefusedKey for the first key that is refused, and SettingError for an `option.env` that cannot be read."""
    key_table.check(BY_NAME, properties)
    if "://" in properties.get("option.entryPoint", ""):
        raise RefusedKey("option.entryPoint is refused: code is run from the model's own files, not from a URL")
    variables(properties)


def remarks(properties: Mapping[str, str]) -> list[str]:
    """What is said without effect, one line each."""
    return key_table.remarks(BY_NAME, properties)


def unknown(properties: Mapping[str, str]) -> list[str]:
    """The keys that nothing reads but the model's own code, if that: most often a slip of the pen."""
    return [name for name in properties if name not in BY_NAME and not name.startswith("option.")]


def variables(properties: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that `option.env` asks for. Raises SettingError."""
    said = properties.get("option.env", "")
    found = {}
    for part in filter(None, (part.strip() for part in said.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not _VARIABLE.fullmatch(name.strip()) or "\0" in value:
            raise SettingError("option.env", said, "NAME=VALUE, with a comma between two of them")
        found[name.strip()] = value.strip()
    return found


def over(said: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """What a file says, and for the rest the defaults. What it says by one key no default says by another."""
    groups = [set(names) for names in KEYS_OF_FILES.values() if not said.keys().isdisjoint(names)]
    taken = set().union(*groups)
    return {**{name: value for name, value in defaults.items() if name not in taken}, **said}


def for_all(said: Iterable[str]) -> dict[str, str]:
    """The setting model_properties, each `KEY=VALUE`. Raises StartError."""
    properties = {}
    for part in said:
        name, equals, value = part.partition("=")
        if not name.strip() or not equals:
            raise StartError(f"model_properties: {part!r} is not KEY=VALUE")
        properties[name.strip()] = value.strip()
    try:
        check(properties)
        model_settings(properties)
    except (RefusedKey, SettingError) as error:
        raise StartError(f"model_properties: {error}") from error
    return properties


def spelled(name: str) -> str:
    """The key that is meant by a name without capitals: `option.entrypoint`, `min_workers`. Else the name itself."""
    return name if name in BY_NAME else _BY_LETTERS.get(name.replace("_", "").lower(), name)


def markdown() -> str:
    """The tables of keys as the documentation has them."""
    lines = ["| key | meaning | default |", "|---|---|---|"]
    lines += [f"| `{key.name}` | {key.meaning} | {key.default} |" for key in TABLE if key.kind is Kind.HONOURED]
    lines += ["", "| key | | why |", "|---|---|---|"]
    lines += key_table.without_effect(TABLE)
    return "\n".join(lines)
