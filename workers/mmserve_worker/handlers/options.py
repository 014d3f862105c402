"""What the handlers read out of a model's serving.properties alike."""

from __future__ import annotations

from collections.abc import Mapping


def is_batch_size_said(options: Mapping[str, str]) -> bool:
    """Whether the owner asked for batches, and so vouches for a model of their own taking them."""
    size = options.get("batch_size") or options.get("max_dynamic_batch_size") or ""
    return size.isdecimal() and int(size) > 1
