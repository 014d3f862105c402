"""What clients of Amazon SageMaker's runtime speak, boto3 above all: their requests, and the answers they understand.

POST /endpoints/{anything}/invocations      GET /execution-parameters

Nothing of this is on the way of other requests: inference.py comes here by the path. Signatures are not looked at.
"""

from __future__ import annotations

import re

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
from mmserve.http.answers import REQUEST_ID, json_response, unexpected
from mmserve.http.asking import TARGET_MODEL, Asking, Target
from mmserve.http.model_headers import response_headers
from mmserve.http.streaming import streamed_answer
from mmserve.scheduling.request import Answer

PREFIX = "/endpoints/"
EXECUTION_PARAMETERS = "/execution-parameters"

_OPERATION = re.compile(r"/endpoints/[^/]+/([^/]+)")
_INVOKE = "invocations"
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


class SageMakerApi:
    """`request_timeout` in seconds, `max_request_size` in bytes; `cpus` that may be used."""

    def __init__(self, asking: Asking, *, request_timeout: float, max_request_size: int, cpus: float) -> None:
        self._asking = asking
        self._timeout = patience(request_timeout)
        transforms = max(1, min(round(cpus), _ALL_TRANSFORMS))
        self._execution_parameters = {
            "MaxConcurrentTransforms": transforms,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": max(1, min(_USUAL_TRANSFORM, max_request_size // _MIB, _ALL_TRANSFORMS // transforms)),
        }

    def execution_parameters(self, request_id: str) -> web.Response:
        """How a batch transform is to be cut into requests."""
        return json_response(self._execution_parameters, request_id=request_id)

    async def respond(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        try:
            _check(request)
            headers = request.headers
            # None: Asking looks for the header itself.
            component = None if TARGET_MODEL in headers else headers.get(_COMPONENT)
            answer = await self._asking.ask(request, Target(component, ""), request_id, self._timeout)
            return self._response(request, answer, request_id)
        except ModelNotFound as error:
            said = request.headers.get(TARGET_MODEL)
            reason = error.reason and f": {error.reason}"
            message = f"Failed to download model data: there is no {said!r} in the model store{reason}."
            if not said:
                message = str(error)
            return _refusal(400, "ValidationError", message, request_id)
        except ServingError as error:
            return _error(error, request_id)
        except Exception as error:  # the last resort of a request: anything else would end its connection
            unexpected(error, request_id)
            return _refusal(500, "InternalFailure", f"{type(error).__name__}: {error}", request_id)

    def _response(self, request: web.BaseRequest, answer: Answer, request_id: str) -> web.StreamResponse:
        if answer.status >= 300:
            if answer.stream is not None:
                answer.stream.decline()
            message = answer.body[:_LONGEST_MESSAGE].decode("utf-8", "replace")
            return _model_error(answer.status, message, request_id)
        further = _identified(request_id)
        further["x-Amzn-Invoked-Production-Variant"] = request.headers.get(_VARIANT, _ONLY_VARIANT)
        if _INFERENCE_ID in request.headers:
            further[_INFERENCE_ID] = request.headers[_INFERENCE_ID]
        if answer.stream is not None:
            return streamed_answer(answer, answer.stream, request_id, further, patience=self._timeout)
        headers = CIMultiDict(response_headers(answer, request_id))
        headers.update(further)
        return web.Response(body=answer.body, status=answer.status, headers=headers)


def patience(request_timeout: float) -> float:
    """Seconds in which a model has to answer.

    boto3 gives up and then asks anew: the answer that says why has to come before. Whoever has set a longer
    request_timeout has set boto3's read_timeout as well.
    """
    return request_timeout if request_timeout > _BOTO3_PATIENCE else min(request_timeout, _PATIENCE)


def _check(request: web.BaseRequest) -> None:
    """Raises what keeps the request from being one to a model."""
    match = _OPERATION.fullmatch(request.rel_url.raw_path)
    operation = match[1] if match is not None and request.method == hdrs.METH_POST else ""
    if operation in _REFUSED:
        raise BadRequest(_REFUSED[operation])
    if operation != _INVOKE:
        raise NotFound(f"No such route: {request.method} {request.path}")
    headers = request.headers
    for name, longest in _LONGEST.items():
        said = headers.get(name)
        if said is not None and (len(said) > longest or not said.isprintable()):
            raise BadRequest(f"Header {name} has at most {longest} characters, all of them printable.")
    for name, reason in _UNKNOWN.items():
        if name in headers:
            raise BadRequest(reason)


def _error(error: ServingError, request_id: str) -> web.Response:
    """The error as the class that boto3 has for it."""
    match error:
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
    response.headers.update(_identified(request_id))
    return response


def _identified(request_id: str) -> dict[str, str]:
    return {REQUEST_ID: request_id, "x-amzn-RequestId": request_id}
