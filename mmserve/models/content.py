"""Gets a model's files onto the disk and reads what they say of how to serve it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mmserve.errors import ModelFailed
from mmserve.models import keys, properties, requirements
from mmserve.models.archive import ArchiveCache, ArchiveError
from mmserve.models.keys import RefusedKey
from mmserve.models.model import Content, Model
from mmserve.models.properties import PropertiesError
from mmserve.models.requirements import RequirementsError
from mmserve.models.settings import SettingError, model_settings
from mmserve.models.trust import Trust, UntrustedModel
from mmserve_worker.handlers import contracts

logger = logging.getLogger("mmserve.models")

# What was said of keys without effect; as many as there are rows in a table.
_remarked: set[str] = set()


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
        options = keys.over(said, defaults)
        keys.check(options)
        settings = model_settings(options)
        needs = requirements.needed(directory, environments)
    except (ArchiveError, PropertiesError, RefusedKey, RequirementsError, SettingError, UntrustedModel) as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name}: {error}") from error
    except OSError as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name} cannot be read: {error}") from error
    for key in keys.unknown(said):
        logger.warning("model %s: unknown key in serving.properties: %s", model.name, key)
    for remark in keys.remarks(said):
        _remark_once(remark, model.name)
    has_code = contracts.may_have_code(directory, options)
    return Content(directory, options, settings, has_code, seen, version, trust.codeless, needs)


def _remark_once(remark: str, model: str) -> None:
    """For the first model of which it is true: files by the thousand say the same."""
    if remark not in _remarked:
        _remarked.add(remark)
        logger.warning("serving.properties: %s (model %s is the first that says it)", remark, model)
