"""Looks an archive over before it is shipped: will it be served, and as its owner means it?

Everything is read, nothing is run: no model is unpickled, and code is compiled only.
"""

from __future__ import annotations

import difflib
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from mmserve.models import keys, model_config
from mmserve.models.archive import ArchiveError, UnpackLimits, name_of, unpack, valid_name, why_no_model
from mmserve.models.key_table import RefusedKey
from mmserve.models.model_config import ModelConfigError
from mmserve.models.properties import FILE_NAME, PropertiesError, read
from mmserve.models.settings import SettingError, model_settings
from mmserve_worker.handlers import contracts
from mmserve_worker.handlers.files import model_file


@dataclass(slots=True)
class Report:
    """What is wrong, and what is worth knowing, one line each."""

    errors: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check(archive: Path) -> Report:
    """Nothing stays of what is unpacked. OSError where the archive cannot be read, or the disk is full."""
    report = Report()
    name = name_of(archive)
    if name is None or not valid_name(name):
        report.errors.append(f"{archive.name!r} gives no valid model name: {why_no_model(name)}")
    with tempfile.TemporaryDirectory(prefix="mmserve-check-") as cache:
        try:
            directory = unpack(archive, Path(cache), UnpackLimits())
        except ArchiveError as error:
            report.errors.append(str(error))
        else:
            _check_directory(directory, report)
    return report


def _check_directory(directory: Path, report: Report) -> None:
    properties = _check_properties(directory, report)
    _check_config(directory, report)
    code = _check_code(directory, properties, report)
    if code:
        report.remarks.append(f"it is called by {code}")
    try:
        model = model_file(directory, properties)
    except LookupError as error:
        # Code of the model's own loads what it likes.
        if not code:
            (report.errors if code is None else report.remarks).append(str(error))
    else:
        report.remarks.append(f"the model is {model.relative_to(directory)}")
        if model.stat().st_size == 0:
            report.errors.append(f"{model.relative_to(directory)} is empty")
    if (directory / "requirements.txt").is_file():
        report.remarks.append("requirements.txt asks for packages of the model's own")
    sizes = [os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(directory) for name in names]
    files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    report.remarks.append(f"{files}, {sum(sizes)} bytes unpacked")


def _check_properties(directory: Path, report: Report) -> dict[str, str]:
    try:
        properties = read(directory)
    except PropertiesError as error:
        report.errors.append(str(error))
        return {}
    for key in keys.unknown(properties):
        near = difflib.get_close_matches(key, keys.BY_NAME, n=1)
        hint = f", is {near[0]} meant?" if near else ""
        report.remarks.append(f"{FILE_NAME}: the key {key!r} is not known{hint}")
    report.remarks += [f"{FILE_NAME}: {remark}" for remark in keys.remarks(properties)]
    try:
        keys.check(properties)
        model_settings(properties)
    except (RefusedKey, SettingError) as error:
        report.errors.append(f"{FILE_NAME}: {error}")
    return properties


def _check_config(directory: Path, report: Report) -> None:
    try:
        config = model_config.read(directory)
    except contracts.ManifestError:
        # It is said with the code that it names.
        return
    except ModelConfigError as error:
        report.errors.append(str(error))
    except (RefusedKey, SettingError) as error:
        report.errors.append(f"{model_config.FILE_NAME}: {error}")
    else:
        report.remarks += [f"{model_config.FILE_NAME}: {remark}" for remark in config.remarks]


def _check_code(directory: Path, properties: dict[str, str], report: Report) -> str | None:
    """What of the model's own code serves it: None where there is no such code, nothing where that cannot be said."""
    entry_point = properties.get("option.entryPoint", "")
    is_file = entry_point.endswith(".py") and "://" not in entry_point
    named = entry_point if is_file else entry_point.replace(".", "/") + ".py"
    try:
        decision = contracts.decide(directory, properties)
    except contracts.ManifestError as error:
        report.errors.append(str(error))
        return ""
    handler = decision.options.get("option.handler") or properties.get("option.handler", "")
    handler = handler if decision.contract is contracts.Contract.MMS else ""
    called = _called(decision, properties, handler)
    handler = handler.partition(":")[0]
    files = {"model.py", named, *contracts.INFERENCE_FILES, handler}
    present = [name for name in sorted(files) if name.endswith(".py") and (directory / name).is_file()]
    for name in present:
        _check_syntax(directory, name, report)
    if is_file and named not in present:
        report.errors.append(f"{FILE_NAME}: option.entryPoint is {entry_point!r}, which is not in the archive")
    if handler.endswith(".py") and not (directory / Path(handler).name).is_file() and handler not in present:
        report.errors.append(f"the handler is {handler!r}, which is not in the archive")
    return called


def _called(decision: contracts.Decision, properties: dict[str, str], handler: str) -> str | None:
    file = decision.options.get("option.entryPoint")
    match decision.contract:
        case contracts.Contract.MMS:
            return f"the handler {handler}, as in Multi Model Server"
        case contracts.Contract.SAGEMAKER:
            return f"the functions of {file}, as in SageMaker's containers"
        case contracts.Contract.DJL:
            function = properties.get("option.handler") or "handle"
            # What has no such function may replace parts of what is done with a model file.
            return f"{function}(inputs) of {file}, as in DJL Serving" if file else ""
    return None


def _check_syntax(directory: Path, name: str, report: Report) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile((directory / name).read_bytes(), name, "exec", dont_inherit=True)
    except SyntaxError as error:
        report.errors.append(f"{name}, line {error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        # A NUL in the source, or an expression nested past what the compiler can take.
        report.errors.append(f"{name} cannot be compiled: {error}")
