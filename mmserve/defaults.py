"""What holds for a model of which nobody has said anything: the server's settings, and what the host has."""

from __future__ import annotations

import math

from mmserve.config import Settings
from mmserve.models.model import EffectiveSettings
from mmserve.supervision.limits import Limits
from mmserve.supervision.memory import MIB


def model_defaults(settings: Settings, limits: Limits) -> EffectiveSettings:
    memory = settings.max_memory_mb
    return EffectiveSettings(
        min_workers=settings.min_workers,
        max_workers=settings.max_workers or math.ceil(limits.cpus),
        batch_size=settings.batch_size,
        max_batch_delay=settings.max_batch_delay / 1000,
        max_idle_time=settings.max_idle_time,
        job_queue_size=settings.job_queue_size,
        weight=1.0,
        pinned=False,
        max_memory=None if memory is None else math.ceil(memory * MIB),
        predict_timeout=settings.predict_timeout,
        model_loading_timeout=settings.model_loading_timeout,
    )
