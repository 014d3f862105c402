"""`mmserve serve`: the command of a container, as Amazon SageMaker starts it and as anybody else may.

It stays in the foreground and answers everything at one address, that of all interfaces. Which models there are is said
by SageMaker's variables where nothing else says it; those that say a setting are in foreign.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from mmserve.cli.options import load_settings, settings_options
from mmserve.cli.serve import announce, serve_here
from mmserve.config import Loaded
from mmserve.errors import StartError

_ADDRESS = "http://0.0.0.0:8080"
# Where SageMaker puts what a container is given.
_BASE_DIR = "/opt/ml"


@click.command()
@settings_options()
def serve(config_file: str | None, **given: Any) -> None:
    """Serves in the foreground, as a container's command.

    Without --model-store or --model: what POST /models asks for if SAGEMAKER_MULTI_MODEL is true, else /opt/ml/model.
    """
    serve_here(in_container(load_settings(given, config_file), os.environ), announce)


def in_container(loaded: Loaded, environment: Mapping[str, str]) -> Loaded:
    """The settings with what a container has for defaults. Raises StartError."""
    settings, said = loaded.settings, loaded.sources
    inference = settings.inference_address if "inference_address" in said else _ADDRESS
    management = settings.management_address if "management_address" in said else inference
    model = settings.model
    if model is None and settings.model_store is None and not _is_multi_model(environment):
        model = str(Path(environment.get("SAGEMAKER_BASE_DIR") or _BASE_DIR, "model"))
    if management != inference:
        _check_port(management, environment.get("SAGEMAKER_SAFE_PORT_RANGE"))
    changed = msgspec.structs.replace(settings, inference_address=inference, management_address=management, model=model)
    return loaded._replace(settings=changed)


def _is_multi_model(environment: Mapping[str, str]) -> bool:
    said = environment.get("SAGEMAKER_MULTI_MODEL", "").strip().lower()
    if said not in ("", "true", "false"):
        raise StartError(f"SAGEMAKER_MULTI_MODEL is true or false, not {said!r}")
    return said == "true"


def _check_port(address: str, safe: str | None) -> None:
    """Raises StartError for one that another container of the same host may have."""
    if not safe:
        return
    first, _, last = safe.partition("-")
    port = address.rstrip("/").rpartition(":")[2]
    if not (first.isdecimal() and last.isdecimal()):
        raise StartError(f"SAGEMAKER_SAFE_PORT_RANGE: {safe!r} is not valid: it looks like 9000-9999")
    if not (port.isdecimal() and int(first) <= int(port) <= int(last)):
        raise StartError(f"management_address {address} is outside SAGEMAKER_SAFE_PORT_RANGE={safe}")
