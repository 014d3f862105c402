"""What code written for SageMaker's containers imports from them: content types, decoders and encoders, a Response.

Put into sys.modules when a model needs it and the real ones are not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmserve_worker.handlers import sagemaker_codecs
from mmserve_worker.handlers.mms_replies import body_of
from mmserve_worker.handlers.mms_shims import install_packages

_CONTENT_TYPES = {
    "JSON": sagemaker_codecs.JSON,
    "CSV": sagemaker_codecs.CSV,
    "NPY": sagemaker_codecs.NPY,
    "OCTET_STREAM": "application/octet-stream",
    "ANY": "*/*",
    "UTF8_TYPES": [sagemaker_codecs.JSON, sagemaker_codecs.CSV],
}


class BaseInferenceToolkitError(Exception):
    """Raised by a model's code to say which status its caller gets."""

    def __init__(self, status_code: int, message: str, phrase: str) -> None:
        super().__init__(status_code, message, phrase)
        self.status_code = status_code
        self.message = message
        self.phrase = phrase


class GenericInferenceToolkitError(BaseInferenceToolkitError):
    def __init__(self, status_code: int, message: str = "Invalid Request", phrase: str | None = None) -> None:
        super().__init__(status_code, message, phrase or message)


class BadRequestInferenceToolkitError(BaseInferenceToolkitError):
    def __init__(self, message: str, phrase: str | None = None) -> None:
        super().__init__(400, message, phrase or message)


class UnsupportedFormatError(Exception):
    def __init__(self, content_type: str, **_: Any) -> None:
        super().__init__(f"Content type {content_type} is not supported.")


class ClientError(Exception):
    pass


class Response:
    """An answer with its status and content type."""

    def __init__(
        self,
        response: Any = None,
        accept: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        mimetype: str | None = None,
        **_: Any,
    ) -> None:
        self.response = response
        self.status_code = status
        self.headers = dict(headers or {})
        self.content_type = mimetype or accept or sagemaker_codecs.JSON

    def get_data(self) -> bytes:
        return body_of(self.response)[0]


_ERRORS = {
    kind.__name__: kind
    for kind in (
        BaseInferenceToolkitError,
        GenericInferenceToolkitError,
        BadRequestInferenceToolkitError,
        UnsupportedFormatError,
        ClientError,
    )
}
_DECODE, _ENCODE = {"decode": sagemaker_codecs.decode}, {"encode": sagemaker_codecs.encode}
_FRAMEWORK = "sagemaker_containers.beta.framework"
_TOOLKIT: dict[str, dict[str, Any]] = {
    "sagemaker_inference": {},
    "sagemaker_inference.content_types": _CONTENT_TYPES,
    "sagemaker_inference.decoder": _DECODE,
    "sagemaker_inference.encoder": _ENCODE,
    "sagemaker_inference.errors": _ERRORS,
}
_CONTAINERS: dict[str, dict[str, Any]] = {
    "sagemaker_containers": {},
    "sagemaker_containers.beta": {},
    _FRAMEWORK: {},
    f"{_FRAMEWORK}.content_types": _CONTENT_TYPES,
    f"{_FRAMEWORK}.encoders": {**_DECODE, **_ENCODE},
    f"{_FRAMEWORK}.errors": _ERRORS,
    f"{_FRAMEWORK}.worker": {"Response": Response},
    # Of these the examples import the names, and nothing in them while serving.
    f"{_FRAMEWORK}.env": {},
    f"{_FRAMEWORK}.modules": {},
    f"{_FRAMEWORK}.transformer": {},
}
_XGBOOST: dict[str, dict[str, Any]] = {
    "sagemaker_xgboost_container": {},
    "sagemaker_xgboost_container.encoder": {
        **_DECODE,
        "csv_to_dmatrix": sagemaker_codecs.csv_to_dmatrix,
        "libsvm_to_dmatrix": sagemaker_codecs.libsvm_to_dmatrix,
    },
}


def install() -> None:
    install_packages(_TOOLKIT, _CONTAINERS, _XGBOOST)
