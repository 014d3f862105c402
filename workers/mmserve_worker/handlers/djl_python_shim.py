"""The `djl_python` package that a model.py written for DJL Serving imports from.

Put into sys.modules when a model needs it and no real one is installed. Names, arguments and results are those that
models rely on; how it works is our own. The parts for language models are not here, and importing them fails.
"""

from __future__ import annotations

from typing import Any

from mmserve_worker.handlers import djl_codecs, djl_trial
from mmserve_worker.handlers.djl_formatters import PARTS, decorator
from mmserve_worker.handlers.djl_input import Input
from mmserve_worker.handlers.djl_output import Output
from mmserve_worker.handlers.djl_pair_list import PairList
from mmserve_worker.handlers.djl_sessions import Session, SessionManager
from mmserve_worker.handlers.mms_shims import install_packages

# The release whose surface this is.
_VERSION = "0.36.0"
_DECORATORS = {part: decorator(part) for part in PARTS}


def _named(module: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


_PACKAGE: dict[str, dict[str, Any]] = {
    "djl_python": {
        "Input": Input,
        "Output": Output,
        "PairList": PairList,
        "Session": Session,
        "SessionManager": SessionManager,
        "__version__": _VERSION,
    },
    "djl_python.inputs": {"Input": Input},
    "djl_python.outputs": {"Output": Output},
    "djl_python.pair_list": {"PairList": PairList},
    "djl_python.session_manager": {"Session": Session, "SessionManager": SessionManager},
    "djl_python.encode_decode": _named(djl_codecs, "decode", "decode_csv", "encode", "encode_csv"),
    "djl_python.np_util": _named(djl_codecs, "to_nd_list", "from_nd_list"),
    # Models import the decorators from either.
    "djl_python.input_parser": _DECORATORS,
    "djl_python.output_formatter": _DECORATORS,
    "djl_python.test_model": _named(
        djl_trial,
        "TestHandler",
        "create_concurrent_batch_request",
        "create_text_request",
        "create_numpy_request",
        "create_npz_request",
        "extract_output_as_input",
        "extract_output_as_bytes",
        "extract_output_as_string",
        "extract_output_as_numpy",
        "extract_output_as_npz",
    ),
}


def install() -> None:
    """Makes `from djl_python import Input, Output` work, unless it already does."""
    install_packages(_PACKAGE)
