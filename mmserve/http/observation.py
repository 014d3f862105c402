"""What the server does, for those who watch it.

GET /events?after=ID&model=NAME&limit=N&timeout=SECONDS     GET /metrics
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from mmserve.errors import BadRequest, MethodNotAllowed
from mmserve.http.answers import REQUEST_ID, json_response
from mmserve.observability.events import Detail, Event, EventLog
from mmserve.observability.metrics import Metrics

# Events in one answer, if it is not said how many, and at most.
_USUAL_LIMIT = 100
_LARGEST_LIMIT = 1000
# Seconds that a caller may wait for an event; less than what clients and proxies bear.
_LONGEST_WAIT = 60
# A longer number is no id.
_NUMBER = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

_READING = (hdrs.METH_GET, hdrs.METH_HEAD)


class ObservationApi:
    """Two routes of the management API, which asks here for what is in `paths`."""

    def __init__(self, events: EventLog, metrics: Metrics) -> None:
        self._events = events
        self._metrics = metrics
        self.paths = {"/events": self._answer_events, "/metrics": self._answer_metrics}

    async def respond(
        self, request: web.BaseRequest, parameters: Mapping[str, str], request_id: str
    ) -> web.StreamResponse:
        """Raises ServingError."""
        if request.method not in _READING:
            raise MethodNotAllowed(request.method, request.path, _READING)
        return await self.paths[request.path](request, parameters, request_id)

    async def _answer_metrics(
        self, request: web.BaseRequest, _: Mapping[str, str], request_id: str
    ) -> web.StreamResponse:
        scrape = self._metrics.scrape(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=scrape.body, headers={"Content-Type": scrape.content_type, REQUEST_ID: request_id})

    async def _answer_events(
        self, _: web.BaseRequest, parameters: Mapping[str, str], request_id: str
    ) -> web.StreamResponse:
        limit = _number(parameters, "limit", _USUAL_LIMIT)
        if not 1 <= limit <= _LARGEST_LIMIT:
            raise BadRequest(f"Parameter limit is from 1 to {_LARGEST_LIMIT}, not {limit}.")
        timeout = _seconds(parameters, "timeout", _LONGEST_WAIT)
        model = parameters.get("model")
        log = self._events
        if "after" in parameters:
            found = await log.wait(_number(parameters, "after", 0), model=model, limit=limit, timeout=timeout)
        else:
            found = log.newest(model=model, limit=limit)
        # As of the same turn of the event loop: with no events found, none were missed up to the last.
        content = {"events": [_described(event) for event in found], "last": log.last_id, "first": log.first_id}
        return json_response(content, request_id=request_id)


def _described(event: Event) -> dict[str, Any]:
    time = datetime.datetime.fromtimestamp(event.time, datetime.UTC)
    own = {
        "id": event.id,
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "kind": event.kind,
        "model": event.model,
        "reason": _sound(event.reason),
    }
    # Whatever a detail is called, those who follow need the id.
    return {**own, **{name: _sound(detail) for name, detail in event.details.items()}, **own}


def _sound(detail: Detail) -> Detail:
    """Without the lone surrogates of what was no UTF-8, which make JSON that few can read."""
    return detail.encode(errors="backslashreplace").decode() if isinstance(detail, str) else detail


def _number(parameters: Mapping[str, str], name: str, default: int) -> int:
    said = parameters.get(name, str(default))
    if _NUMBER.fullmatch(said) is None:
        raise BadRequest(f"Parameter {name} is a whole number of 0 or more, not {said!r}.")
    return int(said)


def _seconds(parameters: Mapping[str, str], name: str, longest: int) -> float:
    said = parameters.get(name, "0")
    if _SECONDS.fullmatch(said) is None or float(said) > longest:
        raise BadRequest(f"Parameter {name} is from 0 to {longest} seconds, not {said!r}.")
    return float(said)
