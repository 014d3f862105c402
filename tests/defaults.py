"""The settings of a model of which nobody has said anything, for tests without a server."""

from mmserve.models.model import EffectiveSettings

DEFAULTS = EffectiveSettings(
    min_workers=0,
    max_workers=2,
    batch_size=32,
    max_batch_delay=0.0,
    max_idle_time=60.0,
    job_queue_size=1000,
    weight=1.0,
    pinned=False,
    max_memory=None,
    predict_timeout=60.0,
    model_loading_timeout=240.0,
)
