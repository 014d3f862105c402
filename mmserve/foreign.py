"""Environment variables of the servers that mmserve takes the place of, and which setting each of them says.

One table. A variable says a setting, or has no effect, or is refused: what somebody relies on and does not get has to
be known at the start. A variable that names a group ends in `*`. Of two that say one setting the later row holds.
`OPTION_*` and `ARGS_*` say together what all models' serving.properties say, as far as these do not say it themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mmserve.errors import StartError
from mmserve.models import keys


class Foreign(NamedTuple):
    """One variable. `setting` is what it says; without one, `reason` says why it says nothing.

    Or `mmserve serve` reads it itself, for what `serve` says.
    """

    variable: str
    setting: str | None = None
    reason: str = ""
    # Raises ValueError, saying what would be understood, for what cannot be meant; None is "not said".
    convert: Callable[[str], Any] = str
    # The server does not start with it, unless it asks for one of these, which holds anyway.
    refused: bool = False
    unless: tuple[str, ...] = ()
    serve: str = ""


class Said(NamedTuple):
    setting: str
    value: Any
    variable: str


class Read(NamedTuple):
    """What the environment says of settings, in the order of the table, and what it says without effect."""

    said: list[Said]
    remarks: list[str]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _if_positive(text: str) -> int | None:
    """A number of workers; to DJL Serving zero and less mean "as many as is usual"."""
    number = _whole(text)
    return number if number > 0 else None


def _timeout(text: str) -> float | None:
    """Seconds, of which some say -1 where they mean the usual."""
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("a number of seconds") from None
    return None if seconds <= 0 else seconds


def _bytes_of_mib(text: str) -> int:
    return _whole(text) * 1024 * 1024


def _address_of_port(text: str) -> str:
    port = _whole(text)
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"a port, from 0 to {_LAST_PORT}")
    return f"http://0.0.0.0:{port}"


def _log_level(text: str) -> str:
    """Of Python's numbers or names; what is in between is as the next below."""
    if not text.isdigit():
        return text.upper()
    return next((name for least, name in _LOG_LEVELS if int(text) >= least), "DEBUG")


_LAST_PORT = 65535
_LOG_LEVELS = ((40, "ERROR"), (30, "WARNING"), (20, "INFO"))


def _names(text: str) -> list[str]:
    """Of models of the store, for what DJL Serving knows as `NONE`, `ALL` or a list."""
    names = [part for part in re.split(r"[,\s]+", text) if part not in ("", "NONE")]
    for name in names:
        if set(name) & set("=[]:"):
            raise ValueError("names of models in the store; register what is elsewhere by POST /models")
    return names


_SERVING = (
    Foreign("SERVING_MODEL_STORE", "model_store"),
    Foreign("SERVING_INFERENCE_ADDRESS", "inference_address"),
    Foreign("SERVING_MANAGEMENT_ADDRESS", "management_address"),
    Foreign("SERVING_JOB_QUEUE_SIZE", "job_queue_size"),
    Foreign("SERVING_BATCH_SIZE", "batch_size"),
    Foreign("SERVING_MAX_BATCH_DELAY", "max_batch_delay"),
    Foreign("SERVING_MAX_IDLE_TIME", "max_idle_time"),
    Foreign("SERVING_MIN_WORKERS", "min_workers", convert=_whole),
    Foreign("SERVING_MAX_WORKERS", "max_workers", convert=_if_positive),
    Foreign("SERVING_MAX_REQUEST_SIZE", "max_request_size"),
    Foreign("PREDICT_TIMEOUT", "predict_timeout"),
    Foreign("MODEL_LOADING_TIMEOUT", "model_loading_timeout"),
    Foreign("DJL_CACHE_DIR", "cache_dir"),
    Foreign("SERVING_DOWNLOAD_DIR", "cache_dir"),
    Foreign("SERVING_WAIT_MODEL_LOADING", reason="the server answers at once, and requests wait for their model"),
    Foreign("SERVING_ALLOW_MULTI_STATUS", reason="/ping is about the server, and is 200 while models load"),
    Foreign("SERVING_NUMBER_OF_NETTY_THREADS", reason="there is one event loop, and models have processes"),
    Foreign("SERVING_RESERVED_MEMORY_MB", reason="memory is measured, and memory_budget bounds it"),
    Foreign("SERVING_LOAD_ON_DEVICES", reason="models run on CPUs", refused=True, unless=("*", "-1", "cpu")),
    Foreign("SERVING_MODEL_URL_PATTERN", reason="a request loads no model that is not registered or in the store"),
    Foreign("SERVING_PLUGIN_FOLDER", reason="there are no plugins"),
    Foreign("SERVING_CORS_*", reason="a proxy in front adds CORS headers", refused=True),
    Foreign("SERVING_KEYSTORE*", reason="a proxy in front ends TLS", refused=True),
    Foreign("SERVING_PRIVATE_KEY_FILE", reason="a proxy in front ends TLS", refused=True),
    Foreign("SERVING_CERTIFICATE_FILE", reason="a proxy in front ends TLS", refused=True),
    Foreign("SERVING_GRPC_*", reason="there is no gRPC, only HTTP", refused=True),
    Foreign("SERVING_CLUSTER_ADDRESS", reason="a server is one host"),
    Foreign("SERVING_CHUNKED_READ_TIMEOUT", reason="predict_timeout bounds it"),
    Foreign("SERVING_ERROR_RATE_*", reason="a model that fails is answered 424, and does not make /ping fail"),
    Foreign("SERVING_BAD_REQUEST_HTTP_CODE", reason="it is always 400", refused=True, unless=("400",)),
    Foreign("SERVING_WLM_ERROR_HTTP_CODE", reason="it is always 503", refused=True, unless=("503",)),
    Foreign("SERVING_THROTTLE_ERROR_HTTP_CODE", reason="it is always 429", refused=True, unless=("429",)),
    Foreign("SERVING_SERVER_ERROR_HTTP_CODE", reason="it is always 500", refused=True, unless=("500",)),
    Foreign("SERVING_TIMEOUT_HTTP_CODE", reason="it is always 504"),
    Foreign(
        "SERVING_REQUEST_ID_HEADER_KEY", reason="it is always x-request-id", refused=True, unless=("x-request-id",)
    ),
    Foreign("SERVING_USE_NATIVE_IO", reason="it concerns Java"),
    Foreign("SERVING_IO_RATIO", reason="it concerns Java"),
    Foreign("SERVING_OPTS", reason="it concerns Java"),
    Foreign("JAVA_OPTS", reason="it concerns Java"),
    Foreign("MAX_NETTY_BUFFER_SIZE", reason="max_request_size bounds answers, too"),
    Foreign("SERVING_FEATURES", reason="there are no features to be switched on"),
    Foreign("SERVING_PROMETHEUS", reason="GET /metrics is always there"),
    Foreign("SERVING_RETRY_THRESHOLD", reason="a model that fails is tried again after a while, for ever"),
    Foreign("SERVING_FAIL_FAST", reason="a model that fails does not end the server"),
    Foreign("SERVING_HEALTH_CHECK_OVERRIDE", reason="a model that fails does not make /ping fail"),
    Foreign("SERVING_CACHE_*", reason="answers are not kept"),
    Foreign("SERVING_MEMORY_CACHE_CAPACITY", reason="answers are not kept"),
    Foreign("SERVING_DDB_CACHE", reason="answers are not kept"),
    Foreign("SERVING_S3_CACHE*", reason="answers are not kept"),
    Foreign("DJL_OFFLINE", "environments_offline"),
    Foreign("DJL_VENV_DIR", reason="environments of models are in cache_dir"),
    Foreign("PYTHON_EXECUTABLE", reason="models run in the Python that mmserve runs in"),
    Foreign("MODEL_SERVER_HOME", reason="the file with settings is the one of --config"),
    *(Foreign(name, reason="models come from the store") for name in ("HF_MODEL_ID", "HF_TASK", "HF_REVISION")),
    Foreign("ALLOW_REQUEST_HANDLER_OVERRIDE", reason="the model says which handler is called, not the request"),
    Foreign("SERVING_LOAD_MODELS", "load_models", convert=_names),
    # The last of its name: what no row above has.
    Foreign("SERVING_*", reason="it is not known"),
)

_NO_JAVA = "there is no Java here, whose memory it bounds; memory_budget bounds that of the server and its workers"
_ANY_MODEL = "a model's archive says what is called, and every archive may hold code of its own"
_BY_REQUEST = "models are loaded when POST /models asks for them, from the directory that it names"

# Of SageMaker's platform, and of its containers for scikit-learn and XGBoost.
_SAGEMAKER = (
    Foreign("SAGEMAKER_BIND_TO_PORT", "inference_address", convert=_address_of_port),
    Foreign("SAGEMAKER_SAFE_PORT_RANGE", serve="another port for management has to be in it"),
    Foreign("SAGEMAKER_MULTI_MODEL", serve="`true`: the models are those that `POST /models` asks for"),
    Foreign("SAGEMAKER_BASE_DIR", serve="`model` in it is the only model; else `/opt/ml`"),
    Foreign("SAGEMAKER_NUM_MODEL_WORKERS", "max_workers", convert=_if_positive),
    Foreign("SAGEMAKER_MODEL_SERVER_WORKERS", "max_workers", convert=_if_positive),
    Foreign("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", "job_queue_size"),
    # Seconds, as it is documented; Multi Model Server takes them for minutes.
    Foreign("SAGEMAKER_MODEL_SERVER_TIMEOUT", "predict_timeout", convert=_timeout),
    Foreign("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "predict_timeout", convert=_timeout),
    Foreign("SAGEMAKER_STARTUP_TIMEOUT", "model_loading_timeout", convert=_timeout),
    Foreign("SAGEMAKER_MAX_REQUEST_SIZE", "max_request_size"),
    Foreign("SAGEMAKER_MAX_PAYLOAD_IN_MB", "max_request_size", convert=_bytes_of_mib),
    Foreign("SAGEMAKER_CONTAINER_LOG_LEVEL", "log_level", convert=_log_level),
    Foreign("SAGEMAKER_MODEL_SERVER_VMARGS", reason=_NO_JAVA),
    Foreign("SAGEMAKER_MAX_HEAP_SIZE", reason=_NO_JAVA),
    Foreign("SAGEMAKER_MAX_DIRECT_MEMORY_SIZE", reason=_NO_JAVA),
    Foreign("SAGEMAKER_MMS_MODEL_STORE", reason=_BY_REQUEST),
    Foreign("SAGEMAKER_MMS_LOAD_MODELS", reason=_BY_REQUEST),
    Foreign("SAGEMAKER_MMS_DEFAULT_HANDLER", reason=_ANY_MODEL),
    Foreign("SAGEMAKER_HANDLER", reason=_ANY_MODEL),
)

# Of models, by the key of serving.properties; SageMaker's program is in a model's directory of code.
_PROGRAM, _USUAL_PROGRAM = "SAGEMAKER_PROGRAM", "inference.py"
_OF_MODELS = {
    _PROGRAM: "option.entryPoint",
    "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "option.default_accept",
    "DJL_ENTRY_POINT": "option.entryPoint",
}

TABLE: tuple[Foreign, ...] = (*_SERVING, *_SAGEMAKER)


def read(environment: Mapping[str, str]) -> Read:
    """Raises StartError for what is refused or cannot be meant. An empty variable is as none."""
    found = Read([], [])
    for row, variable in _rows_in(environment):
        text = environment[variable].strip()
        if row.serve:
            continue
        if row.setting is not None:
            try:
                value = row.convert(text)
            except ValueError as error:
                raise StartError(f"{variable} is {text!r}, expected {error}") from error
            if value is not None:
                found.said.append(Said(row.setting, value, variable))
        elif row.refused and text.lower() not in row.unless:
            raise StartError(f"{variable}={text} cannot be had: {row.reason}; unset it to start without")
        else:
            found.remarks.append(f"{variable} has no effect: {row.reason}")
    properties = _properties(environment)
    if properties:
        found.said.append(Said("model_properties", list(properties.values()), ", ".join(properties)))
    return found


def _properties(environment: Mapping[str, str]) -> dict[str, str]:
    """What `OPTION_*` and `ARGS_*` say of all models, by the variable."""
    said = {variable: name for variable, name in _OF_MODELS.items() if environment.get(variable)}
    for variable in sorted(environment):
        for prefix, group in (("ARGS_", ""), ("OPTION_", "option.")):
            name = variable.removeprefix(prefix).lower()
            if variable.startswith(prefix) and name:
                # The engine is no option, although it is said as one.
                said[variable] = keys.spelled("engine" if name == "engine" else group + name)
    if environment.get(_PROGRAM) == _USUAL_PROGRAM:
        # What a model is looked at for anyway; to those without code it would be a file that is missing.
        del said[_PROGRAM]
    # Of two that say the same the later holds, so that OPTION_ENTRYPOINT goes before DJL_ENTRY_POINT.
    return {
        variable: f"{name}={'code/' if variable == _PROGRAM else ''}{environment[variable]}"
        for variable, name in said.items()
    }


def _rows_in(environment: Mapping[str, str]) -> Iterator[tuple[Foreign, str]]:
    """The rows that are said, in the order of the table, each variable by the first row that names it."""
    seen: set[str] = set()
    for row in TABLE:
        group = row.variable.removesuffix("*")
        names = [row.variable] if group == row.variable else sorted(n for n in environment if n.startswith(group))
        for name in names:
            if name not in seen and environment.get(name, "").strip():
                seen.add(name)
                yield row, name


def markdown() -> str:
    """The table of variables as the documentation has it."""
    lines = ["| variable | |", "|---|---|"]
    for row in TABLE:
        values = ", ".join(f"`{value}`" for value in row.unless)
        if row.serve:
            lines.append(f"| `{row.variable}` | for `mmserve serve`: {row.serve} |")
            continue
        refused = "refused" + (f", unless {values}" if values else "")
        said = f"`{row.setting}`" if row.setting else f"{refused if row.refused else 'no effect'}: {row.reason}"
        lines.append(f"| `{row.variable}` | {said} |")
    return "\n".join(lines)
