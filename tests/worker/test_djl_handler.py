"""A model.py written for DJL Serving runs here unmodified."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmserve_worker import handlers
from mmserve_worker.calls import Call, Handler, ModelSpec, Reply
from mmserve_worker.handlers import ndlist
from mmserve_worker.handlers.djl_input import Input
from mmserve_worker.handlers.djl_output import Output
from mmserve_worker.handlers.errors import LoadError
from tests.worker.handled import call
from tests.worker.unhurried import unhurried

Load = Callable[..., Handler]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a model.py, and afterwards puts back what that changes in a process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)

    def load_source(source: str, file: str = "model.py", **options: str) -> Handler:
        (tmp_path / file).write_text("from djl_python import Input, Output\n" + dedent(source))
        said = {key.replace("option_", "option."): value for key, value in options.items()}
        return handlers.load(ModelSpec("the-model", str(tmp_path), said))

    yield load_source
    for name in set(sys.modules) - before:
        if name.startswith(("djl_python", "mmserve_model_", "beside", "entry")):
            del sys.modules[name]


def answer(handler: Handler, body: bytes = b"[1]", **said: Any) -> Reply:
    (reply,) = handler.answer([call(body, **said)])
    return reply


def handling(expression: str) -> str:
    return f"""
def handle(inputs):
    if inputs.is_empty():
        return None
    {expression}
"""


def test_an_echo(load: Load) -> None:
    handler = load(handling("return Output().add(inputs.get_as_json())"))
    assert answer(handler, b'{"a": [1, 2.5, null]}') == Reply(200, "application/json", b'{"a":[1,2.5,null]}')


def test_submodules_can_be_imported_from_as_well(load: Load) -> None:
    source = """
        import djl_python
        from djl_python.inputs import Input as I
        from djl_python.outputs import Output as O
        from djl_python import PairList
        assert (I, O, djl_python.inputs.Input) == (Input, Output, Input)
        def handle(inputs: I) -> O:
            return O().add("ok")
    """
    assert answer(load(source)).body == b"ok"


def test_the_first_call_is_empty_and_has_the_model_s_properties(load: Load, tmp_path: Path) -> None:
    source = """
        seen = []
        def handle(inputs):
            if inputs.is_empty():
                seen.append(dict(inputs.get_properties()))
                return None
            return Output().add(seen)
    """
    handler = load(source, option_threshold="0.5", minWorkers="2")
    (properties,) = json.loads(bytes(answer(handler).body))  # type: ignore[arg-type]
    assert properties["threshold"] == "0.5"
    assert properties["minWorkers"] == "2"
    assert properties["model_dir"] == str(tmp_path)
    assert properties["handler"] == "handle"
    assert properties["device_id"] == "-1"


def test_a_request_s_properties_are_its_headers(load: Load) -> None:
    names = ["X-Tenant", "CONTENT-TYPE", "requestId", "threshold", "model_dir"]
    source = handling(f"return Output().add([inputs.get_property(name) for name in {names}])")
    handler = load(source, option_threshold="1")
    said = {"headers": {"x-tenant": "a", "x-request-id": "7"}, "content_type": "text/plain"}
    got = json.loads(bytes(answer(handler, b"x", **said).body))  # type: ignore[arg-type]
    assert got[:4] == ["a", "text/plain", "7", None]
    assert got[4]


@pytest.mark.parametrize(
    ("expression", "body", "expected"),
    [
        ("inputs.get_as_string()", b"caf\xc3\xa9", "café"),
        ("inputs.get_as_bytes().decode()", b"x", "x"),
        ("type(inputs.get_as_bytes()).__name__", b"x", "bytearray"),
        ("inputs.get_as_json('data')", b"[1]", [1]),
        ("inputs.get_as_csv()", b"a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ("inputs.get_data()", b"[1]", [1]),
        ("[inputs.is_batch(), inputs.get_batch_size(), inputs.get_batches() == [inputs]]", b"x", [False, 1, True]),
        ("[inputs.contains_key('data'), inputs.contains_key('other'), inputs.is_empty()]", b"x", [True, False, False]),
        ("inputs.get_function_name()", b"x", "handle"),
        ("[inputs.get_content().size(), inputs.get_content().key_at(0)]", b"x", [1, "data"]),
        ("inputs.get_content().get_keys()", b"x", ["data"]),
        ("sorted(set(inputs.get_properties()))[0]", b"x", "Content-Type"),
    ],
)  # fmt: skip
def test_what_an_input_gives(load: Load, expression: str, body: bytes, expected: Any) -> None:
    handler = load(handling(f"return Output().add_as_json({expression})"))
    assert json.loads(bytes(answer(handler, body, content_type="application/json").body)) == expected  # type: ignore[arg-type]


def test_a_missing_key_is_an_error(load: Load) -> None:
    reply = answer(load(handling("return Output().add(inputs.get_as_bytes('other'))")))
    assert (reply.status, reply.error_type) == (424, "KeyError")


def test_forms_are_an_entry_for_each_field(load: Load) -> None:
    source = handling("return Output().add([[k, inputs.get_as_string(k)] for k in inputs.get_content().get_keys()])")
    handler = load(source)
    reply = answer(handler, b"a=1&b=x+y&c=", content_type="application/x-www-form-urlencoded")
    assert json.loads(bytes(reply.body)) == [["a", "1"], ["b", "x y"], ["c", ""]]  # type: ignore[arg-type]
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\nContent-Type: image/png\r\n\r\n'
        b"raw\r\n--XX--\r\n"
    )
    reply = answer(handler, body, content_type="multipart/form-data; boundary=XX")
    assert json.loads(bytes(reply.body)) == [["a", "1"], ["f", "raw"]]  # type: ignore[arg-type]
    assert answer(handler, body, content_type="multipart/form-data").status == 400


@pytest.mark.parametrize(
    ("expression", "content_type", "body"),
    [
        ("add('text')", "text/plain", b"text"),
        ("add(b'bytes')", "application/octet-stream", b"bytes"),
        ("add(bytearray(b'bytes'))", "application/octet-stream", b"bytes"),
        ("add({'a': 1})", "application/json", b'{"a":1}'),
        ("add([1, 'é'])", "application/json", '[1,"é"]'.encode()),
        ("add_as_json(__import__('numpy').arange(3))", "application/json", b"[0,1,2]"),
        ("add_as_json([__import__('datetime').date(2024, 1, 2)])", "application/json", b'["2024-01-02"]'),
        ("add('a', key='other').add('b', key='data')", "text/plain", b"b"),
        ("add('a', key='first').add('b', key='second')", "text/plain", b"a"),
        ("add_property('content-TYPE', 'text/csv').add('1,2')", "text/csv", b"1,2"),
        ("add(None)", "", b""),
        ("set_code(201).set_message('Created').add('x')", "text/plain", b"x"),
        ("add_stream_content(iter(['a', 'b']))", "application/octet-stream", b'{"outputs": "a"}\n{"outputs": "b"}\n'),
        ("add_stream_content(iter(['a', b'b', 3]), None)", "application/octet-stream", b"ab3"),
        ("add_stream_content(iter([1, 2]), lambda n: str(n) + ';')", "application/octet-stream", b"1;2;"),
    ],
)
def test_what_an_output_takes(load: Load, expression: str, content_type: str, body: bytes) -> None:
    reply = answer(load(handling(f"return Output().{expression}")))
    assert (reply.content_type, reply.body) == (content_type, body)
    assert reply.status == (201 if "201" in expression else 200)
    assert not reply.headers


def test_properties_are_headers(load: Load) -> None:
    reply = answer(load(handling("return Output().add('x').add_property('X-Score', 3)")))
    assert reply.headers == {"X-Score": "3"}


def test_an_error_of_the_handler_s_own_making_is_its_answer(load: Load) -> None:
    reply = answer(load(handling("return Output().error('went wrong', code=418, message='teapot')")))
    assert (reply.status, reply.content_type, reply.error_type) == (418, "application/json", "")
    assert json.loads(bytes(reply.body)) == {"code": 418, "message": "teapot", "error": "went wrong"}  # type: ignore[arg-type]


def test_none_is_no_content(load: Load) -> None:
    assert answer(load(handling("return None"))) == Reply(204, "", b"")


@pytest.mark.parametrize(
    ("expression", "status", "error_type", "message"),
    [
        ("raise ValueError('mine\\nand more')", 424, "ValueError", "mine"),
        ("raise SystemExit(3)", 424, "SystemExit", "3"),
        ("raise MemoryError('much')", 507, "MemoryError", "much"),
        ("return 3", 424, "ModelException", "Invalid output type: <class 'int'>"),
        ("return Output(code=7)", 424, "ModelException", "invalid status code: 7"),
        ("return Output().add_as_json(float('nan'))", 424, "ValueError", None),
        ("return Output().add({1, 2})", 424, "TypeError", "a set has no JSON form"),
        ("return Output().add_stream_content(1 / n for n in [0])", 424, "ZeroDivisionError", "division by zero"),
    ],
)
def test_failures(load: Load, expression: str, status: int, error_type: str, message: str | None) -> None:
    reply = answer(load(handling(expression)))
    assert (reply.status, reply.error_type, reply.body) == (status, error_type, b"")
    assert message is None or reply.error == message


def test_a_finalizer_runs_and_may_fail(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    source = """
        ran = []
        def fail(*arguments):
            ran.append(arguments)
            raise RuntimeError("finalizer")
        def handle(inputs):
            output = Output().add(ran)
            return output if inputs.is_empty() else output.finalize(fail, 1, 2)
    """
    handler = load(source)
    assert answer(handler).body == b"[]"
    assert "finalizer" in caplog.text
    assert answer(handler).body == b"[[1,2]]"


# --- loading


def test_the_file_runs_once_in_its_directory_and_finds_its_neighbours(load: Load, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'neighbour'")
    (tmp_path / "runs.txt").write_text("")
    source = """
        import pickle
        from pathlib import Path
        import beside
        runs = Path("runs.txt")
        runs.write_text(runs.read_text() + "x")
        class Model: pass
        def handle(inputs):
            return Output().add([beside.NAME, type(pickle.loads(pickle.dumps(Model()))).__name__])
    """
    assert json.loads(bytes(answer(load(source)).body)) == ["neighbour", "Model"]  # type: ignore[arg-type]
    assert (tmp_path / "runs.txt").read_text() == "x"


def test_options_name_the_file_and_the_function(load: Load) -> None:
    source = "def answer_it(inputs):\n    return Output().add('here')\n"
    handler = load(source, file="entry.py", option_entryPoint="entry.py", option_handler="answer_it")
    assert answer(handler).body == b"here"


def test_an_entry_point_may_be_a_module(load: Load) -> None:
    source = "def handle(inputs):\n    return Output().add('module')\n"
    handler = load(source, file="entry_module.py", option_entryPoint="entry_module")
    assert answer(handler).body == b"module"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("x = 1", {}, r"model.py has no function handle\(inputs\)"),
        ("def handle(inputs): pass", {"option_handler": "other"}, "no function other"),
        ("def handle(inputs): pass", {"option_entryPoint": "missing.py"}, "there is no missing.py"),
        ("def handle(inputs): pass", {"option_entryPoint": "https://example.org/model.py"}, "is a URL"),
        ("def handle(inputs): return Output().error('no weights')", {}, "424.*no weights"),
    ],
)
def test_what_cannot_be_served_does_not_load(load: Load, source: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load(source, **options)


def test_what_model_py_raises_at_load_is_raised(load: Load) -> None:
    with pytest.raises(ZeroDivisionError):
        load("1 / 0")
    assert not [name for name in sys.modules if name.startswith("mmserve_model_")]
    with pytest.raises(RuntimeError, match="at first call"):
        load("def handle(inputs): raise RuntimeError('at first call')")


# --- batches

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
    return [json.loads(bytes(reply.body)) for reply in replies]  # type: ignore[arg-type]


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


# --- the formats of arrays


@unhurried
@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        max_size=3,
    )
)
def test_arrays_come_through_an_ndlist_unchanged(several: list[Any]) -> None:
    inputs = Input()
    inputs.content.add("data", bytearray(Output().add_as_numpy(several).content.value_at(0)))
    for before, after in zip(several, inputs.get_as_numpy(), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_an_ndlist_is_laid_out_as_documented() -> None:
    expected = (
        b"\0\0\0\1" b"\0\4NDAR" b"\0\0\0\3" b"\0" b"\0\7default" b"\0\7FLOAT32"
        b"\0\0\0\2" b"\0\0\0\0\0\0\0\1" b"\0\0\0\0\0\0\0\2" b"\0\0\0\2\0\0\0\0" b">"
        b"\0\0\0\x08" b"\x3f\x80\0\0\x40\0\0\0"
    )  # fmt: skip
    encoded = ndlist.encode([np.array([[1, 2]], np.float32)])
    assert encoded == expected
    little = expected.replace(b">\0\0\0\x08\x3f\x80\0\0\x40\0\0\0", b"<\0\0\0\x08\0\0\x80\x3f\0\0\0\x40")
    named = little.replace(b"\0\0\0\3\0\0\7default", b"\0\0\0\3\1\0\1n\0\7default")
    for variant in (expected, little, named):
        np.testing.assert_array_equal(ndlist.decode(variant)[0], [[1, 2]])


@unhurried
@given(st.binary(max_size=60) | st.integers(0, 70).map(lambda end: ndlist.encode([np.eye(2)])[:end]))
def test_what_is_no_ndlist_is_a_value_error_and_allocates_nothing(data: bytes) -> None:
    try:
        decoded = ndlist.decode(data)
    except (ValueError, TypeError):
        return
    assert sum(array.nbytes for array in decoded) <= len(data)


def test_other_formats_of_arrays_are_taken_for_what_they_are() -> None:
    npy, npz = io.BytesIO(), Output().add_as_npz([np.eye(2), np.arange(3)]).content.value_at(0)
    np.save(npy, np.eye(2))
    inputs = Input()
    inputs.content.add("npy", bytearray(npy.getvalue()))
    inputs.content.add("npz", bytearray(npz))
    np.testing.assert_array_equal(inputs.get_as_numpy("npy")[0], np.eye(2))
    assert [array.shape for array in inputs.get_as_numpy("npz")] == [(2, 2), (3,)]
    assert [array.shape for array in inputs.get_as_npz("npz")] == [(2, 2), (3,)]


def test_a_body_that_curl_calls_a_form_is_read_as_it_is(load: Load) -> None:
    handler = load(handling("return Output().add_as_json(inputs.get_as_json())"))
    reply = answer(handler, b"[[1]]", content_type="application/x-www-form-urlencoded")
    assert isinstance(reply.body, bytes | bytearray)
    assert json.loads(reply.body) == [[1]]
