"""Requests are put together for a model.py that asks for it, and only what is bad fails."""

from __future__ import annotations

from typing import Any

import pytest

from mmserve_worker.calls import Call, Reply
from tests.worker.djl_models import Load, handling, json_of
from tests.worker.handled import call

BATCHING = """
    sizes = []
    def handle(inputs):
        if inputs.is_empty():
            return None
        batches = inputs.get_batches()
        sizes.append(len(batches))
        output = Output()
        for index, one in enumerate(batches):
            row = one.get_as_json()
            place = index if inputs.is_batch() else None
            output.add_as_json([row, one.get_property("x-n"), len(batches)], batch_index=place)
        return output
"""


def calls(*bodies: bytes) -> list[Call]:
    return [call(body, headers={"X-N": str(number)}) for number, body in enumerate(bodies)]


def bodies(replies: list[Reply]) -> list[Any]:
    return [json_of(reply) for reply in replies]


def test_requests_are_put_together_where_the_owner_asks_for_it(load: Load) -> None:
    waiting = calls(b"[1]", b"[2]", b"[3]")
    assert bodies(load(BATCHING).answer(waiting)) == [[[1], "0", 1], [[2], "1", 1], [[3], "2", 1]]
    together = load(BATCHING, batch_size="4").answer(waiting)
    assert bodies(together) == [[[1], "0", 3], [[2], "1", 3], [[3], "2", 3]]
    assert {reply.content_type for reply in together} == {"application/json"}


def test_only_the_bad_one_of_a_batch_fails(load: Load) -> None:
    handler = load(BATCHING, batch_size="4")
    replies = handler.answer(calls(b"[1]", b"nonsense", b"[3]"))
    assert [reply.status for reply in replies] == [200, 424, 200]
    assert bodies(handler.answer(calls(b"[1]", b"[2]")))[0][2] == 2


def test_an_error_for_all_is_asked_for_again_one_by_one(load: Load) -> None:
    source = handling("return Output().error('all') if inputs.is_batch() else Output().add('alone')")
    assert [reply.body for reply in load(source, batch_size="4").answer(calls(b"1", b"2"))] == [b"alone", b"alone"]


def test_a_handler_that_knows_no_batches_is_spared_them(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    source = """
        calls = []
        def handle(inputs):
            if inputs.is_empty():
                return None
            calls.append(inputs.is_batch())
            return Output().add(calls)
    """
    handler = load(source, batch_size="4")
    handler.answer(calls(b"1", b"2"))
    assert "one request at a time" in caplog.text
    assert bodies(handler.answer(calls(b"1", b"2")))[1] == [True, False, False, False, False]
