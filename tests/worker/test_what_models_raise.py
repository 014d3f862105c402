"""Whatever a model's code raises is that request's failure: it ends no worker, and comes out of no handler."""

from __future__ import annotations

import pytest

from tests.worker.coded import Coded, answer

RAISED = {
    "of an event loop of its own": "import asyncio\nraised = asyncio.CancelledError",
    "that is meant to end a process": "raised = KeyboardInterrupt",
    "that is meant to end a generator": "raised = GeneratorExit",
    "without words": """
class raised(Exception):
    def __str__(self):
        raise ValueError("nor has this one")
""",
    "without a status": """
class raised(Exception):
    @property
    def error_code(self):
        raise ValueError("nor has this one")
""",
}
CONTRACTS = {
    "DJL Serving": ("model.py", "def handle(inputs):\n    if not inputs.is_empty():\n        raise raised"),
    "a decorated function": (
        "model.py",
        "from djl_python.input_parser import init_handler, input_formatter, prediction_handler\n"
        "@init_handler\ndef load(directory):\n    return 1\n"
        "@prediction_handler\ndef predict(data, model):\n    raise raised\n"
        "@input_formatter\ndef read(inputs):\n    return 1",
    ),
    "SageMaker": (
        "inference.py",
        "def model_fn(model_dir):\n    return 1\n"
        "def transform_fn(model, body, content_type, accept):\n    raise raised",
    ),
    "Multi Model Server": ("model.py", "def handle(data, context):\n    if data is not None:\n        raise raised"),
}


@pytest.mark.parametrize("raised", RAISED.values(), ids=RAISED)
@pytest.mark.parametrize(("file", "source"), CONTRACTS.values(), ids=CONTRACTS)
def test_an_exception_is_the_answer_to_its_request(coded: Coded, file: str, source: str, raised: str) -> None:
    reply = answer(coded.load({file: f"{raised}\n{source}\n"}))
    assert (reply.status, reply.body) == (424, b"")
    assert reply.error, "a name at least"
