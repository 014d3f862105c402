"""What clients of Amazon SageMaker's runtime speak, boto3 above all: their requests, and the answers they understand.

POST /endpoints/{anything}/invocations      GET /execution-parameters

Signatures are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import hdrs, web
from multidict import CIMultiDict

from mmserve.errors import (
    BadRequest,
    DeadlineExceeded,
    ModelFailed,
    ModelNotFound,
    NotFound,
    NotLoadedInTime,
    PredictTimeout,
    ServingError,
)
from mmserve.http.answers import as_serving_error, json_response
from mmserve.http.asking import TARGET_MODEL, target_model
from mmserve.http.dialect import Outcome
from mmserve.http.model_headers import response_headers
from mmserve.http.plain import written_answer
from mmserve.http.streaming import streamed_answer
from mmserve.scheduling.request import Answer

PREFIX = "/endpoints/"
EXECUTION_PARAMETERS = "/execution-parameters"

_OPERATION = re.compile(r"/endpoints/[^/]+/([^/]+)")
_REFUSED = {
    "invocations-response-stream": "InvokeEndpointWithResponseStream is not supported, as for every endpoint with many "
    "models; use InvokeEndpoint.",
    "async-invocations": "InvokeEndpointAsync is not supported; use InvokeEndpoint.",
}

_SAID = "X-Amzn-SageMaker-"
_COMPONENT = _SAID + "Inference-Component"
_INFERENCE_ID = _SAID + "Inference-Id"
_VARIANT = _SAID + "Target-Variant"
# Characters that the service's model allows; botocore itself checks none of it.
_LONGEST = {
    TARGET_MODEL: 1024,
    _COMPONENT: 63,
    _INFERENCE_ID: 64,
    _VARIANT: 63,
    _SAID + "Custom-Attributes": 1024,
    _SAID + "Session-Id": 256,
}
# To leave these out of account would be another answer than was asked for.
_UNKNOWN = {
    _SAID + "Target-Container-Hostname": "TargetContainerHostname is not supported: an endpoint is one server.",
    _SAID + "Enable-Explanations": "EnableExplanations is not supported: there is no explainer.",
}

# Every endpoint has one variant, unless its client says what it calls it.
_ONLY_VARIANT = "AllTraffic"
# Seconds: boto3's read_timeout, and what is left of it when an answer has to be on its way.
_PATIENCE, _BOTO3_PATIENCE = 58.0, 60.0
# Characters of a model's message that are passed on.
_LONGEST_MESSAGE = 16 * 1024

_MIB = 1024 * 1024
# Of a batch transform, in MiB: what SageMaker sends at once if it is told nothing, and what all its concurrent
# requests together may be.
_USUAL_TRANSFORM, _ALL_TRANSFORMS = 6, 100


class SageMaker:
    """A dialect. `request_timeout` in seconds, `max_request_size` in bytes; `cpus` that may be used."""

    def __init__(self, *, request_timeout: float, max_request_size: int, cpus: float) -> None:
        self.timeout = patience(request_timeout)
        transforms = max(1, min(round(cpus), _ALL_TRANSFORMS))
        self._execution_parameters = {
            "MaxConcurrentTransforms": transforms,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": max(1, min(_USUAL_TRANSFORM, max_request_size // _MIB, _ALL_TRANSFORMS // transforms)),
        }

    def execution_parameters(self, request_id: str) -> web.Response:
        """How a batch transform is to be cut into requests."""
        return json_response(self._execution_parameters, request_id=request_id)

    def refused(self, method: str, path: str, request_id: str) -> web.Response:
        """The answer to what is no request to a model, although its path, as it came, begins as that of one."""
        match = _OPERATION.fullmatch(path)
        operation = match[1] if match is not None and method == hdrs.METH_POST else ""
        reason = _REFUSED.get(operation)
        return _error(NotFound(f"No such route: {method} {path}") if reason is None else BadRequest(reason), request_id)

    def check(self, headers: Mapping[str, str]) -> None:
        for name, longest in _LONGEST.items():
            said = headers.get(name)
            if said is not None and (len(said) > longest or not said.isprintable()):
                raise BadRequest(f"Header {name} has at most {longest} characters, all of them printable.")
        for name, reason in _UNKNOWN.items():
            if name in headers:
                raise BadRequest(reason)

    def addressed(self, headers: Mapping[str, str]) -> str | None:
        return target_model(headers) if TARGET_MODEL in headers else headers.get(_COMPONENT) or None

    def plain(self, headers: Mapping[str, str], outcome: Outcome, request_id: str) -> bytes | None:
        if not isinstance(outcome, Answer):
            return None
        return written_answer(outcome, request_id, _further(headers, request_id))

    def response(self, headers: Mapping[str, str], outcome: Outcome, request_id: str) -> web.StreamResponse:
        if isinstance(outcome, ModelNotFound):
            said = headers.get(TARGET_MODEL)
            reason = outcome.reason and f": {outcome.reason}"
            message = f"Failed to download model data: there is no {said!r} in the model store{reason}."
            if not said:
                message = str(outcome)
            return _refusal(400, "ValidationError", message, request_id)
        if isinstance(outcome, Exception):
            return _error(outcome, request_id)
        try:
            return self._answer(headers, outcome, request_id)
        except ModelFailed as error:
            return _error(error, request_id)

    def _answer(self, asked: Mapping[str, str], answer: Answer, request_id: str) -> web.StreamResponse:
        if answer.status >= 300:
            if answer.stream is not None:
                answer.stream.decline()
            message = answer.body[:_LONGEST_MESSAGE].decode("utf-8", "replace")
            return _model_error(answer.status, message, request_id)
        further = _further(asked, request_id)
        if answer.stream is not None:
            return streamed_answer(answer, answer.stream, request_id, further, patience=self.timeout)
        headers = CIMultiDict(response_headers(answer, request_id))
        headers.update(further)
        return web.Response(body=answer.body, status=answer.status, headers=headers)


def patience(request_timeout: float) -> float:
    """Seconds in which a model has to answer.

    boto3 gives up and then asks anew: the answer that says why has to come before. Whoever has set a longer
    request_timeout has set boto3's read_timeout as well.
    """
    return request_timeout if request_timeout > _BOTO3_PATIENCE else min(request_timeout, _PATIENCE)


def _further(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """What an answer to a request with these headers has in its own."""
    further = {
        "x-amzn-RequestId": request_id,
        "x-Amzn-Invoked-Production-Variant": headers.get(_VARIANT, _ONLY_VARIANT),
    }
    if _INFERENCE_ID in headers:
        further[_INFERENCE_ID] = headers[_INFERENCE_ID]
    return further


def _error(unforeseen: Exception, request_id: str) -> web.Response:
    """The error as the class that boto3 has for it."""
    match error := as_serving_error(unforeseen, request_id):
        case ModelFailed():
            return _model_error(error.status, str(error), request_id)
        case NotLoadedInTime():
            return _refusal(429, "ModelNotReadyException", str(error), request_id)
        case DeadlineExceeded() | PredictTimeout():
            # No status has come from the model.
            return _model_error(0, str(error), request_id)
        case NotFound():
            return _refusal(404, "UnknownOperationException", str(error), request_id)
        case ServingError(status=429 | 503 | 507):
            response = _refusal(503, "ServiceUnavailable", str(error), request_id)
            if error.retry_after is not None:
                response.headers["x-amz-retry-after"] = str(error.retry_after * 1000)
            return response
        case ServingError(status=status) if status < 500:
            return _refusal(status, "ValidationError", str(error), request_id)
    return _refusal(500, "InternalFailure", str(error), request_id)


def _model_error(status: int, message: str, request_id: str) -> web.Response:
    blamed = "client" if 400 <= status < 500 else "server"
    content = {
        "Message": f'Received {blamed} error ({status}) from model with message "{message}".',
        "OriginalStatusCode": status,
        "OriginalMessage": message,
        # The log is the server's own, which has no name at AWS.
        "LogStreamArn": "",
    }
    return _typed(json_response(content, status=424, request_id=request_id), "ModelError", request_id)


def _refusal(status: int, kind: str, message: str, request_id: str) -> web.Response:
    return _typed(json_response({"Message": message}, status=status, request_id=request_id), kind, request_id)


def _typed(response: web.Response, kind: str, request_id: str) -> web.Response:
    response.headers["x-amzn-ErrorType"] = kind
    response.headers["x-amzn-RequestId"] = request_id
    return response
