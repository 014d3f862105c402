"""What handlers written for Multi Model Server answer: one request's answer, failures, batches."""

from __future__ import annotations

import pytest

from mmserve_worker.calls import Call, Reply
from tests.worker.coded import Coded, answer, mms_handler, mms_loaded, said
from tests.worker.handled import call


@pytest.mark.parametrize(
    ("expression", "content_type", "body"),
    [
        ("'text'", "text/plain; charset=utf-8", b"text"),
        ("bytearray(b'bytes')", "application/octet-stream", b"bytes"),
        ("{'a': [1, float('nan')]}", "application/json", b'{"a": [1, null]}'),
        ("__import__('numpy').arange(2)", "application/json", b"[0, 1]"),
        ("None", "application/json", b"null"),
    ],
)
def test_answers_are_what_they_look_like(coded: Coded, expression: str, content_type: str, body: bytes) -> None:
    reply = answer(mms_loaded(coded, mms_handler(f"return [{expression}]")))
    assert reply == Reply(200, content_type, body)


def test_a_handler_says_status_content_type_and_headers(coded: Coded) -> None:
    expression = (
        "context.set_response_content_type(0, 'text/csv'); context.set_response_status(418, 'Teapot', 0); "
        "context.set_response_header(0, 'X-Shard', 7); return ['1,2']"
    )
    assert answer(mms_loaded(coded, mms_handler(expression))) == Reply(418, "text/csv", b"1,2", {"X-Shard": "7"})
    expression = "context.set_all_response_status(202, 'Accepted'); return ['x']"
    assert answer(mms_loaded(coded, mms_handler(expression))).status == 202


def test_nothing_of_an_answer_is_left_for_the_next(coded: Coded) -> None:
    expression = "context.set_response_status(418, '', 0) if data[0]['body'] else None; return ['x']"
    handler = mms_loaded(coded, mms_handler(expression))
    assert [answer(handler, body).status for body in (b"x", b"")] == [418, 200]


@pytest.mark.parametrize(
    ("expression", "status", "error_type", "message"),
    [
        ("raise ValueError('mine\\nand more')", 424, "ValueError", "mine"),
        ("raise MemoryError('much')", 507, "MemoryError", "much"),
        ("raise SystemExit(3)", 424, "SystemExit", "3"),
        ("from mms.service import PredictionException as P; raise P('no such shop', 422)", 422, "PredictionException",
         "no such shop"),
        ("from ts.utils.util import PredictionException as P; raise P('gone')", 500, "PredictionException", "gone"),
        ("return 'x'", 424, "ModelException", "the handler has not returned a list of one answer"),
        ("return []", 424, "ModelException", "the handler has not returned a list of one answer"),
        ("return [{1, 2}]", 424, "TypeError", "a set has no JSON form"),
        ("context.set_response_status(7, '', 0); return ['x']", 424, "ModelException", "invalid status code: 7"),
    ],
)  # fmt: skip
def test_failures(coded: Coded, expression: str, status: int, error_type: str, message: str) -> None:
    reply = answer(mms_loaded(coded, mms_handler(expression)))
    assert (reply.status, reply.error_type, reply.error, reply.body) == (status, error_type, message, b"")


# --- batches

BATCHING = mms_handler(
    "context.set_response_header(1 % len(data), 'X-Place', 'last'); "
    "return [[int(row['body']), len(data), context.get_request_header(index, 'x-n')] for index, row in enumerate(data)]"
)


def calls(*bodies: bytes) -> list[Call]:
    return [call(body, headers={"X-N": str(number)}) for number, body in enumerate(bodies)]


def test_requests_are_put_together_where_the_owner_asks_for_it(coded: Coded) -> None:
    assert list(map(said, mms_loaded(coded, BATCHING).answer(calls(b"7", b"8")))) == [[7, 1, "0"], [8, 1, "1"]]
    handler = mms_loaded(coded, BATCHING, {"batch_size": "4"})
    replies = handler.answer(calls(b"7", b"8"))
    assert list(map(said, replies)) == [[7, 2, "0"], [8, 2, "1"]]
    assert [reply.headers for reply in replies] == [{}, {"X-Place": "last"}]


def test_only_the_bad_one_of_a_batch_fails(coded: Coded) -> None:
    handler = mms_loaded(coded, BATCHING, {"batch_size": "4"})
    replies = handler.answer(calls(b"7", b"nonsense", b"8"))
    assert [reply.status for reply in replies] == [200, 424, 200]
    assert said(handler.answer(calls(b"7", b"8"))[0])[1] == 2


def test_a_handler_that_knows_no_batches_is_spared_them(coded: Coded, caplog: pytest.LogCaptureFixture) -> None:
    source = "sizes = []\n" + mms_handler("sizes.append(len(data)); return [sizes]")
    handler = mms_loaded(coded, source, {"batch_size": "4"})
    handler.answer(calls(b"1", b"2"))
    assert "one request at a time" in caplog.text
    assert said(handler.answer(calls(b"1", b"2"))[1]) == [2, 1, 1, 1, 1]
