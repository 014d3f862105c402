"""What a path with its query asks for: which model, which of its methods, and in which dialect."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web

from mmserve.http.dialect import Dialect
from mmserve.scheduling.request import Query

_NATIVE = re.compile(r"/(?:predictions/([^/]+)|models/([^/]+)/invoke|(invocations))")
_SAGEMAKER = re.compile(r"/endpoints/[^/]+/invocations")
# Parsed paths that are remembered; more than that in use, and all are parsed anew. Longer ones, in characters, are
# none that a client has reason to repeat.
_MAX_KNOWN = 100_000
_LONGEST = 400
# The same for what is said in a query. Hundreds of empty words fit into so few characters, and 100,000 such targets
# would take 1.5 GB.
_MOST_SAID = 4


class Target(NamedTuple):
    """No model where the headers have to say which."""

    model: str | None
    method: str
    query: Query
    dialect: Dialect


class Targets:
    def __init__(self, native: Dialect, sagemaker: Dialect) -> None:
        self._native = native
        self._sagemaker = sagemaker
        # By the path as it came.
        self.known: dict[str, Target] = {}

    def of(self, request: web.BaseRequest) -> Target | None:
        """None for what is no inference."""
        known = self.known.get(request.raw_path)
        if known is not None:
            return known
        target = self._parse(request)
        if target is not None and len(request.raw_path) <= _LONGEST and len(target.query) <= _MOST_SAID:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[request.raw_path] = target
        return target

    def _parse(self, request: web.BaseRequest) -> Target | None:
        # Undecoded, since a name may have a slash in it, which is %2F there.
        path = request.rel_url.raw_path
        match = _NATIVE.fullmatch(path)
        if match is not None:
            query = request.query
            name = unquote(match[1] or match[2] or "") or query.get("model_name")
            return Target(name, query.get("method", ""), tuple(query.items()), self._native)
        if _SAGEMAKER.fullmatch(path) is not None:
            return Target(None, "", (), self._sagemaker)
        return None
