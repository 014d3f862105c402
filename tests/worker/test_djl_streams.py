"""What a model.py gives piece by piece, and what it wants done after its answer."""

from __future__ import annotations

import pytest

from mmserve_worker.calls import Reply
from tests.worker.coded import answer
from tests.worker.djl_models import Load, handling, json_of


def pieces(reply: Reply) -> list[object]:
    assert reply.stream is not None
    return [reply.body, *reply.stream]


@pytest.mark.parametrize(
    ("expression", "content_type", "expected"),
    [
        ("iter(['a', {'b': 1}])", "application/jsonlines", [b'{"outputs": "a"}\n', b'{"outputs": {"b": 1}}\n']),
        ("['a', b'b', bytearray(b'c'), 3, [4]], None", "application/octet-stream", [b"a", b"b", b"c", b"3", b"[4]"]),
        ("['a', '', 'b'], output_formatter=None", "application/octet-stream", [b"a", b"b"]),
        ("iter([1, 2]), lambda n: str(n) + ';'", "application/octet-stream", [b"1;", b"2;"]),
    ],
)
def test_a_stream_is_made_piece_by_piece(load: Load, expression: str, content_type: str, expected: list[bytes]) -> None:
    reply = answer(load(handling(f"return Output().add_stream_content({expression})")))
    assert (reply.status, reply.content_type) == (200, content_type)
    assert pieces(reply) == expected


def test_properties_and_code_go_with_a_stream(load: Load) -> None:
    source = "output = Output(code=201).add_property('Content-Type', 'text/plain').add_property('x-a', 1)"
    reply = answer(load(handling(f"{source}; return output.add_stream_content(['a'], None)")))
    assert (reply.status, reply.content_type, reply.headers) == (201, "text/plain", {"x-a": "1"})


def test_a_stream_of_nothing_is_an_empty_answer(load: Load) -> None:
    reply = answer(load(handling("return Output().add_stream_content([])")))
    assert (reply.status, reply.body, reply.stream) == (200, b"", None)


@pytest.mark.parametrize("formatter", ["None", "'default'", "str"])
def test_closing_a_stream_closes_the_generator_of_the_model(load: Load, formatter: str) -> None:
    source = f"""
        closed = []
        def endless():
            try:
                while True:
                    yield 1
            finally:
                closed.append(1)
        kept = []
        def handle(inputs):
            if inputs.is_empty():
                return None
            if inputs.get_as_string() == "closed":
                return Output().add_as_json(closed)
            kept.append(endless())
            return Output().add_stream_content(kept[-1], {formatter})
    """
    handler = load(source)
    stream = answer(handler).stream
    assert stream is not None
    next(stream)
    assert json_of(answer(handler, b"closed")) == []
    stream.close()
    assert json_of(answer(handler, b"closed")) == [1]


def test_what_is_to_be_done_after_an_answer_is_left_to_who_sends_it(load: Load) -> None:
    source = """
        ran = []
        def handle(inputs):
            output = Output().add_as_json(ran)
            return output if inputs.is_empty() else output.finalize(lambda *said: ran.append(said), 1, 2)
    """
    handler = load(source)
    reply = answer(handler)
    assert json_of(reply) == []
    assert reply.finished is not None
    reply.finished()
    assert json_of(answer(handler)) == [[1, 2]]
