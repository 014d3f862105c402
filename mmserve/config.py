"""The server's settings: the one place for each one's name, type, default and meaning.

A setting comes from the command line (`--job-queue-size`), the environment (`MMSERVE_JOB_QUEUE_SIZE`, or a variable of
another server's, foreign.py), the TOML file named by `--config` or `MMSERVE_CONFIG` (`job_queue_size`), or its default,
the first of these that says it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from mmserve import expected, foreign, misspelt
from mmserve.errors import StartError
from mmserve.models.settings import MAX_MEMORY_MB, MAX_WORKERS

_PORT_HINT = "`http://HOST:PORT`; port 0 takes a free one"
# What a new template imports before anything was learned: what most scikit-learn models are made of.
_PRELOAD = (
    "numpy",
    "joblib",
    "joblib.numpy_pickle",
    "sklearn",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.linear_model",
    "sklearn.ensemble",
    "sklearn.neighbors",
)


def _directory(systemd: str, xdg: str, fallback: str) -> str:
    """A directory for us: the one systemd has made, the user's own, or the fallback."""
    if os.environ.get(systemd):
        return os.environ[systemd].split(":")[0]
    if os.environ.get(xdg):
        return str(Path(os.environ[xdg], "mmserve"))
    return fallback


def _runtime_dir() -> str:
    return _directory("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", f"/tmp/mmserve-{os.getuid()}")


def _cache_dir() -> str:
    return _directory("CACHE_DIRECTORY", "XDG_CACHE_HOME", str(Path.home() / ".cache" / "mmserve"))


def _state_dir() -> str:
    return _directory("STATE_DIRECTORY", "XDG_STATE_HOME", str(Path.home() / ".local" / "state" / "mmserve"))


Positive = Annotated[int, Meta(ge=1)]
# Endless is none of them: timers are made of these.
_DAY = 86_400.0
Seconds = Annotated[float, Meta(gt=0, le=_DAY)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    model_store: Annotated[
        str | None,
        Meta(description="Directory whose sub-directories and archives are the models, or `s3://BUCKET/PREFIX/`."),
    ] = None
    model: Annotated[
        str | None,
        Meta(description="Directory or archive of the only model, `model`, instead of a store; /ping waits for it."),
    ] = None
    s3_endpoint_url: Annotated[
        str | None, Meta(description="Where S3 answers, if not at AWS; else as `AWS_ENDPOINT_URL_S3` says.")
    ] = None
    s3_region: Annotated[str | None, Meta(description="Region of the bucket; else as the AWS environment says.")] = None
    s3_profile: Annotated[
        str | None, Meta(description="Profile of the AWS configuration; else as the AWS environment says.")
    ] = None
    s3_anonymous: Annotated[bool, Meta(description="Whether S3 is asked without credentials.")] = False
    s3_check_interval: Annotated[
        Seconds, Meta(description="Seconds between two looks at S3 for new, newer and deleted objects.")
    ] = 60.0
    inference_address: Annotated[str, Meta(description=f"Where requests are answered: {_PORT_HINT}.")] = (
        "http://127.0.0.1:8080"
    )
    management_address: Annotated[
        str,
        Meta(description="Where models are managed; the same as the inference address serves both on one."),
    ] = "http://127.0.0.1:8081"
    http: Annotated[
        str,
        Meta(
            pattern="^(lane|aiohttp)$",
            description="`lane` answers plain requests by a faster way of its own, `aiohttp` all by aiohttp's.",
        ),
    ] = "lane"
    job_queue_size: Annotated[Positive, Meta(description="Requests that may wait for one model; more get 429.")] = 1000
    batch_size: Annotated[
        Positive,
        Meta(description="Requests for a plain scikit-learn model that one call may answer together."),
    ] = 32
    max_batch_delay: Annotated[
        float,
        Meta(ge=0, le=1000 * _DAY, description="Milliseconds to wait for a batch to fill; 0 takes what is there."),
    ] = 0.0
    min_workers: Annotated[int, Meta(ge=0, le=MAX_WORKERS, description="Workers that each loaded model keeps.")] = 0
    max_workers: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_WORKERS)] | None,
        Meta(description="Workers that one model's traffic may start."),
    ] = None
    max_idle_time: Annotated[
        float, Meta(ge=0, le=365 * _DAY, description="Seconds after which an idle worker ends.")
    ] = 60.0
    predict_timeout: Annotated[
        Seconds,
        Meta(description="Seconds after which a worker that does not answer is replaced, its request answered 504."),
    ] = 60.0
    model_loading_timeout: Annotated[Seconds, Meta(description="Seconds that a model has to load.")] = 240.0
    max_memory_mb: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_MEMORY_MB)] | None,
        Meta(description="MiB of its own after which a worker is replaced, between requests."),
    ] = None
    memory_budget: Annotated[
        Positive | None,
        Meta(description="Bytes for the server with all its workers; idle ones are evicted to keep to it."),
    ] = None
    store_check_interval: Annotated[
        Seconds, Meta(description="Seconds between two looks for newer files of models that have workers.")
    ] = 5.0
    request_timeout: Annotated[Seconds, Meta(description="Seconds until an accepted request is answered 504.")] = 60.0
    read_timeout: Annotated[
        Seconds, Meta(description="Seconds that a client has to send a request, headers and body.")
    ] = 60.0
    keepalive_timeout: Annotated[
        Seconds, Meta(description="Seconds until an idle connection is closed; more than a load balancer's.")
    ] = 75.0
    drain_timeout: Annotated[
        Seconds, Meta(description="Seconds that accepted requests have to finish when the server stops.")
    ] = 25.0
    max_request_size: Annotated[
        Positive, Meta(description="Bytes of the largest request body, and of the largest answer.")
    ] = 64 * 1024 * 1024
    max_buffered_bytes: Annotated[
        Positive, Meta(description="Bytes of all large request bodies at one time; more get 503.")
    ] = 1024 * 1024 * 1024
    max_header_size: Annotated[int, Meta(ge=1024, description="Bytes of a request line or header; more get 431.")] = (
        8190
    )
    max_unpacked_size: Annotated[Positive, Meta(description="Bytes that one archive may unpack to.")] = (
        8 * 1024 * 1024 * 1024
    )
    max_unpacked_files: Annotated[Positive, Meta(description="Files that one archive may unpack to.")] = 10_000
    load_models: Annotated[
        tuple[str, ...],
        Meta(description="Models of the store that are loaded at the start and keep a worker: their names, or `ALL`."),
    ] = ()
    model_properties: Annotated[
        tuple[str, ...],
        Meta(description="KEY=VALUE: what holds for each model whose serving.properties does not say it."),
    ] = ()
    trust: Annotated[
        str,
        Meta(
            description="Models that may be loaded: `all`, `skops-only` (no pickle, no code), or `sha256:FILE`, a list."
        ),
    ] = "all"
    worker_nice: Annotated[
        int, Meta(ge=0, le=19, description="How far below the front's priority workers run (nice).")
    ] = 5
    worker_environment: Annotated[
        tuple[str, ...], Meta(description="Environment variables that workers get beside PATH, LANG and the like.")
    ] = ()
    preload: Annotated[
        tuple[str, ...], Meta(description="Modules that the template imports before anything was learned.")
    ] = _PRELOAD
    environments: Annotated[
        str,
        Meta(
            pattern="^(build|refuse|ignore)$",
            description="What an archive's requirements.txt, unless it is satisfied, does: build, refuse or ignore.",
        ),
    ] = "build"
    environments_offline: Annotated[
        bool, Meta(description="Build environments without a package index, of an archive's own wheels.")
    ] = False
    environments_size: Annotated[
        Positive | None, Meta(description="Bytes of environments kept on the disk; more only while they are in use.")
    ] = None
    environment_idle_time: Annotated[
        float, Meta(ge=0, le=365 * _DAY, description="Seconds after which an environment without workers is ended.")
    ] = 600.0
    cache_dir: Annotated[str, Meta(description="Directory for unpacked archives.")] = msgspec.field(
        default_factory=_cache_dir
    )
    cache_size: Annotated[
        Positive | None,
        Meta(description="Bytes of unpacked archives; those that were not used for longest are removed."),
    ] = None
    runtime_dir: Annotated[str, Meta(description="Directory for the run file and the log.")] = msgspec.field(
        default_factory=_runtime_dir
    )
    state_dir: Annotated[str, Meta(description="Directory for what was registered and scaled.")] = msgspec.field(
        default_factory=_state_dir
    )
    metrics_models: Annotated[
        int,
        Meta(ge=0, le=10_000, description="Models with series of their own in /metrics; others are counted together."),
    ] = 200
    log_level: Annotated[
        str, Meta(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR.")
    ] = "INFO"


class Setting(NamedTuple):
    """One row of the table of settings."""

    name: str
    type: Any
    default: Any
    description: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return misspelt.PREFIX + self.name.upper()


def table() -> list[Setting]:
    """Every setting, in the order of their definition."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    return [
        Setting(name, hints[name], getattr(defaults, name), _description(hints[name]))
        for name in Settings.__struct_fields__
    ]


def _description(hint: Any) -> str:
    return next(meta.description for meta in get_args(hint)[1:] if isinstance(meta, Meta) and meta.description)


class Loaded(NamedTuple):
    """The settings, where each that is not a default was said, and what was said without effect."""

    settings: Settings
    sources: Mapping[str, str]
    remarks: Sequence[str] = ()


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, file: str | None = None) -> Loaded:
    """Raises StartError, naming the source, for a value that is not valid or a name that is not known."""
    environment = os.environ if environment is None else environment
    rows = {row.name: row for row in table()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def say(row: Setting, value: Any, source: str) -> None:
        if isinstance(row.default, tuple) and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        try:
            values[row.name] = expected.read(value, row.type)
        except ValueError as error:
            raise StartError(f"{source} is {value!r}, expected {error}") from error
        sources[row.name] = source

    path = file or environment.get("MMSERVE_CONFIG")
    for name, value in _read_file(path).items() if path else ():
        if name not in rows:
            raise StartError(f"{path}: unknown setting: {name} (mmserve config lists all)")
        say(rows[name], value, f"{path}: {name}")
    others = foreign.read(environment)
    for name, value, variable in others.said:
        say(rows[name], value, variable)
    for row in rows.values():
        if row.variable in environment:
            say(row, environment[row.variable], row.variable)
    for name, value in flags.items():
        say(rows[name], value, rows[name].flag)
    settings = Settings(**values)
    if settings.max_workers is not None and settings.max_workers < settings.min_workers:
        said = [sources.get(name, name) for name in ("min_workers", "max_workers")]
        raise StartError(f"{said[0]} is {settings.min_workers}, more than {said[1]} of {settings.max_workers}")
    if settings.model is not None and settings.model_store is not None:
        said = [sources.get(name, name) for name in ("model", "model_store")]
        raise StartError(f"{said[0]} and {said[1]} say different things: one model, or the models of a store")
    return Loaded(settings, sources, [*misspelt.remarks(environment, rows), *others.remarks])


def _read_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: is not valid TOML: {error}") from error
