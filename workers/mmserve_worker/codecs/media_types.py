"""Content types and Accept headers: which codec reads a request, which writes its answer.

Both headers are the same few strings call after call, so what they mean is worked out once and cached.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from mmserve_worker.codecs.refusals import unsupported_media_type

# Python has hundreds of codecs, some of which decode text to bytes or run code pages of long gone terminals.
_CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252", "utf-16"})
_QUALITY = re.compile(r"[01](\.[0-9]*)?")


def split(content_type: str) -> tuple[str, str]:
    """The media type in lower case, and the charset: utf-8 unless it is named. No other parameter counts."""
    media_type, *parameters = content_type.split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media_type.strip().lower(), _checked(charset)


def _checked(charset: str) -> str:
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        name = ""
    if name not in _CHARSETS:
        raise unsupported_media_type("this charset is not supported: send utf-8")
    return name


def preferred(accept: str, offers: Sequence[str]) -> str | None:
    """The offer that an Accept header likes best; of equals, what it names first, then the first offer."""
    ranges = [_range(text, position) for position, text in enumerate(accept.split(",")) if text.strip()]
    if not ranges:
        return offers[0]
    best: tuple[float, int] = (0.0, 0)
    chosen = None
    for offer in offers:
        # The most specific range that matches says how much the offer is liked.
        matching = [entry for entry in ranges if entry[0] in (offer, f"{offer.split('/')[0]}/*", "*/*")]
        if not matching:
            continue
        _, quality, position = min(matching, key=lambda entry: entry[0].count("*"))
        if quality > 0 and (chosen is None or (quality, -position) > best):
            best, chosen = (quality, -position), offer
    return chosen


def _range(text: str, position: int) -> tuple[str, float, int]:
    media_range, *parameters = text.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q" and _QUALITY.fullmatch(value.strip()):
            quality = min(float(value), 1.0)
    # A lone star is no media range, but old clients send it and mean "anything".
    name = media_range.strip().lower()
    return ("*/*" if name == "*" else name), quality, position
