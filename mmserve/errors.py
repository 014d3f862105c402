"""Every error that a caller can be answered with: its status and its type name, once.

The type names are those of DJL Serving and Multi Model Server where these have one, since clients look at them.
"""

from __future__ import annotations

from collections.abc import Iterable


class ServingError(Exception):
    """Answered as `{"code": status, "type": error_type, "message": str(error)}`."""

    status = 500
    error_type = "InternalServerException"
    # Seconds after which the caller may try again, where that can help.
    retry_after: int | None = None


class BadRequest(ServingError):
    status = 400
    error_type = "BadRequestException"


class NotFound(ServingError):
    status = 404
    error_type = "ResourceNotFoundException"


class ModelNotFound(ServingError):
    status = 404
    error_type = "ModelNotFoundException"

    def __init__(self, name: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(f"Model not found: {name}{reason and ': '}{reason}")


class MethodNotAllowed(ServingError):
    status = 405
    error_type = "MethodNotAllowedException"

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"{method} {path} is not possible: use {self.allowed}.")


class Conflict(ServingError):
    status = 409
    error_type = "ConflictStatusException"


class PayloadTooLarge(ServingError):
    status = 413
    error_type = "RequestEntityTooLargeException"


class ModelFailed(ServingError):
    """The model, not the server, is at fault: it does not load, it raised, or it killed its worker.

    Another status than 424 is what the model's handler said, such as 400 for a body that it cannot read.
    """

    def __init__(self, error_type: str, message: str, *, status: int = 424) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.status = status


class QueueFull(ServingError):
    status = 429
    error_type = "WlmCapacityException"
    retry_after = 1


class Overloaded(ServingError):
    status = 503
    error_type = "ServiceUnavailableException"
    retry_after = 1


class StateNotSaved(ServingError):
    """What was asked would be forgotten at the next restart: the disk that holds `state_dir` is full or read-only."""

    error_type = "StateNotSavedException"


class NoMemory(ServingError):
    """There is no memory for a worker, and nobody who could be evicted."""

    status = 503
    error_type = "WlmOutOfMemoryException"
    retry_after = 1


class InsufficientMemory(ServingError):
    """The same, told to who wants a model loaded: whoever runs the host can unload others."""

    status = 507
    error_type = "WlmOutOfMemoryException"


class DiskFull(ServingError):
    """There is no room on the disk for a model's content."""

    status = 507
    error_type = "DiskFullException"

    def __init__(self, directory: str) -> None:
        super().__init__(f"The disk of cache_dir is full: {directory}. Free some of it, or use another for cache_dir.")


class CacheUnwritable(ServingError):
    """Nothing can be written to where models' content is kept: a file system that is mounted read-only, say."""

    status = 507
    error_type = "CacheUnwritableException"

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(f"The cache_dir {directory} cannot be written to: {reason}. Mend that, or use another.")


class StoreUnavailable(ServingError):
    """The model store is far away, and does not answer; what is wanted of it is not on this host."""

    status = 503
    error_type = "StoreUnavailableException"
    retry_after = 1


class BucketMissing(StoreUnavailable):
    """Most likely a mistake, or a copy of S3 that is not filled yet: no model is taken for deleted."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"There is no bucket {bucket}.")


class PredictTimeout(ServingError):
    status = 504
    error_type = "PredictTimeoutException"


class Stopping(ServingError):
    status = 503
    error_type = "ServiceUnavailableException"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__("The server is stopping.")


class DeadlineExceeded(ServingError):
    status = 504
    error_type = "DeadlineExceededException"


class NotLoadedInTime(DeadlineExceeded):
    """The deadline passed before there was a worker; the model goes on loading for those who come later."""


class StartError(Exception):
    """The server cannot start; the message is the one line its operator needs."""
