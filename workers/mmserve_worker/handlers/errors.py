"""What a caller is told when a model fails, and what the owner of a model is told when it does not load."""

from __future__ import annotations

import logging

from mmserve_worker.calls import CallError, Reply

logger = logging.getLogger("mmserve.model")

# Called by scikit-learn and by models' own code alike: it is their caller that says whose fault an error is.
_LIBRARIES = frozenset({"joblib", "numpy", "pandas", "scipy"})
# These refuse input that they cannot use with ValueError or TypeError.
_REFUSE = frozenset({"lightgbm", "sklearn", "xgboost"})
_LONGEST_MESSAGE = 500

# All that a model's code may raise. sys.exit() in it, or the CancelledError of an event loop of its own, is that
# request's failure: by an exception nothing ends a worker, whose signals raise none.
RAISED_BY_MODELS = BaseException


class LoadError(Exception):
    """A model that cannot be served, in a sentence for its owner."""


def failure(error: BaseException, model: str) -> Reply:
    """The answer to a call whose model raised.

    scikit-learn, XGBoost and LightGBM refuse input that they cannot use with ValueError or TypeError, and that is the
    caller's to mend. The same classes raised by a model's own code say nothing about the caller: all else is the
    model's failure.
    """
    if isinstance(error, ValueError | TypeError) and _is_refusal(error):
        return CallError(400, "BadRequestException", one_line(error)).reply()
    return model_failure(error, model)


def model_failure(error: BaseException, model: str) -> Reply:
    if isinstance(error, CallError):
        return error.reply()
    logger.error("model %s raised", model, exc_info=error)
    return CallError(status_of(error), type(error).__name__, one_line(error)).reply()


def status_of(error: BaseException) -> int:
    """507 has whoever runs the host unload other models, as SageMaker does."""
    return 507 if isinstance(error, MemoryError) else 424


def one_line(error: BaseException) -> str:
    lines = words_of(error).strip().splitlines()
    return lines[0][:_LONGEST_MESSAGE] if lines else type(error).__name__


def words_of(error: BaseException) -> str:
    """Empty where the exception is of a class of the model's own, and raises when it is asked for them."""
    try:
        return str(error)
    except RAISED_BY_MODELS:
        return ""


def _is_refusal(error: BaseException) -> bool:
    if type(error).__name__ == "NotFittedError":
        return False
    innermost = ""
    traceback = error.__traceback__
    while traceback is not None:
        package = str(traceback.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _LIBRARIES:
            innermost = package
        traceback = traceback.tb_next
    return innermost in _REFUSE
