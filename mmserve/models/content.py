"""Gets a model's files onto the disk and reads what they say of how to serve it."""

from __future__ import annotations

import logging

from mmserve.errors import ModelFailed
from mmserve.models import properties, requirements
from mmserve.models.archive import ArchiveCache, ArchiveError
from mmserve.models.model import Content, Model
from mmserve.models.properties import PropertiesError, unknown_keys
from mmserve.models.requirements import RequirementsError
from mmserve.models.settings import SettingError, model_settings
from mmserve.models.trust import Trust, UntrustedModel
from mmserve_worker.handlers import contracts

logger = logging.getLogger("mmserve.models")


def prepare(model: Model, archives: ArchiveCache, trust: Trust, environments: str = requirements.BUILD) -> Content:
    """Blocks: reads, unpacks and parses files. Raises ModelFailed with what is wrong with them.

    `environments` is the setting of that name.
    """
    try:
        directory, seen, version = model.source.fetch(archives)
        options = properties.read(directory)
        trust.check(directory, options, version if isinstance(version, str) else None)
        settings = model_settings(options)
        needs = requirements.needed(directory, environments)
    except (ArchiveError, PropertiesError, RequirementsError, SettingError, UntrustedModel) as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name}: {error}") from error
    except OSError as error:
        raise ModelFailed(type(error).__name__, f"{model.source.name} cannot be read: {error}") from error
    for key in unknown_keys(options):
        logger.warning("model %s: unknown key in serving.properties: %s", model.name, key)
    has_code = contracts.may_have_code(directory, options)
    return Content(directory, options, settings, has_code, seen, version, trust.codeless, needs)
