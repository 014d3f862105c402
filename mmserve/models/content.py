"""Gets a model's files onto the disk and reads what they say of how to serve it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mmserve.errors import ModelFailed
from mmserve.models import keys, model_config, properties, requirements
from mmserve.models.archive import ArchiveCache, ArchiveError
from mmserve.models.key_table import RefusedKey
from mmserve.models.model import Content, Model
from mmserve.models.model_config import ModelConfigError
from mmserve.models.properties import PropertiesError
from mmserve.models.requirements import RequirementsError
from mmserve.models.settings import SettingError, model_settings
from mmserve.models.trust import Trust, UntrustedModel
from mmserve_worker.handlers import contracts
from mmserve_worker.handlers.contracts import ManifestError

logger = logging.getLogger("mmserve.models")

# What is raised of what is wrong with a model's files, in sentences for its owner.
_FAULTS_OF_FILES = (
    ArchiveError,
    ManifestError,
    ModelConfigError,
    PropertiesError,
    RefusedKey,
    RequirementsError,
    SettingError,
    UntrustedModel,
)
# What was said of keys without effect; as many as there are rows in a table.
_remarked: set[tuple[str, str]] = set()


def prepare(
    model: Model,
    archives: ArchiveCache,
    trust: Trust,
    defaults: Mapping[str, str],
    environments: str = requirements.BUILD,
) -> Content:
    """Blocks: reads, unpacks and parses files. Raises ModelFailed with what is wrong with them.

    `defaults` are properties for what a model's own do not say, `environments` is the setting of that name.
    """
    try:
        directory, seen, version = model.source.fetch(archives)
        said = properties.read(directory)
        if model.handler:
            said["option.handler"] = model.handler
        trust.check(directory, said, version if isinstance(version, str) else None)
        config = model_config.read(directory)
        options = keys.over(keys.over(said, config.properties), defaults)
        keys.check(options)
        settings = model_settings({key: options[key] for key in options if key in said or key not in config.properties})
        batch_size = model.scaled_to.over(model.registered_with).batch_size
        if batch_size is not None:
            # Code of the model's own is given batches where its owner has asked for them, wherever that was.
            options["batch_size"] = str(batch_size)
        needs = requirements.needed(directory, environments)
    except _FAULTS_OF_FILES as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name}: {error}") from error
    except OSError as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name} cannot be read: {error}") from error
    for key in keys.unknown(said):
        logger.warning("model %s: unknown key in serving.properties: %s", model.name, key)
    for remark in keys.remarks(said):
        _remark_once(properties.FILE_NAME, remark, model.name)
    for remark in config.remarks:
        _remark_once(model_config.FILE_NAME, remark, model.name)
    has_code = contracts.may_have_code(directory, options)
    return Content(
        directory, options, settings, has_code, seen, version, trust.codeless, needs, configured=config.settings
    )


def _remark_once(file: str, remark: str, model: str) -> None:
    """For the first model of which it is true: files by the thousand say the same."""
    if (file, remark) not in _remarked:
        _remarked.add((file, remark))
        logger.warning("%s: %s (model %s is the first that says it)", file, remark, model)
