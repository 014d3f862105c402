"""What every error looks like, whichever part of the server answers it."""

from __future__ import annotations

import json

import httpx

from tests.http.raw import Response


def assert_error(response: httpx.Response | Response, status: int, error_type: str, *said: str) -> None:
    """The status, the type, a request id, and one line of a message in which each of `said` occurs."""
    code, body = (
        (response.status_code, response.content)
        if isinstance(response, httpx.Response)
        else (response.status, response.body)
    )
    content = json.loads(body)
    assert content.keys() == {"code", "type", "message"}
    assert (code, content["code"], content["type"]) == (status, status, error_type), content
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    message = content["message"]
    assert message
    assert "\n" not in message
    for part in said:
        assert part in message
