"""What models import from djl_python beside Input and Output, and the parts of both that are lists."""

from __future__ import annotations

import os
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmserve_worker.handlers.djl_codecs import decode, encode, from_nd_list, to_nd_list
from mmserve_worker.handlers.djl_input import Input
from mmserve_worker.handlers.djl_output import Output
from mmserve_worker.handlers.djl_pair_list import PairList
from mmserve_worker.handlers.djl_sessions import Session, SessionManager
from tests.worker.coded import answer
from tests.worker.djl_models import Load, handling, json_of

NAMES = {
    "djl_python": ["Input", "Output", "PairList", "SessionManager", "Session", "__version__"],
    "djl_python.inputs": ["Input"],
    "djl_python.outputs": ["Output"],
    "djl_python.pair_list": ["PairList"],
    "djl_python.encode_decode": ["decode", "encode", "decode_csv", "encode_csv"],
    "djl_python.np_util": ["to_nd_list", "from_nd_list"],
    "djl_python.session_manager": ["Session", "SessionManager"],
    "djl_python.input_parser": ["input_formatter", "init_handler", "prediction_handler"],
    "djl_python.output_formatter": ["output_formatter"],
    "djl_python.test_model": ["TestHandler", "create_text_request", "extract_output_as_string"],
}


def test_everything_is_where_models_import_it_from(load: Load) -> None:
    imports = "; ".join(f"from {module} import {', '.join(names)}" for module, names in NAMES.items())
    assert answer(load(f"{imports}\ndef handle(inputs): return Output().add(__version__)")).body == b"0.36.0"


def test_what_is_for_language_models_is_not_there(load: Load) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"djl_python\.huggingface"):
        load("from djl_python.huggingface import HuggingFaceService\ndef handle(inputs): pass")


def requesting(body: bytes, key: str = "data") -> Input:
    inputs = Input()
    inputs.content.add(key, bytearray(body))
    return inputs


def made(content: Any) -> bytes:
    value = content.content.value_at(0)
    assert isinstance(value, bytes)
    return value


def npy(array: Any) -> bytes:
    output = Output()
    encode(output, array, "application/x-npy")
    return made(output)


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (None, b"[1]", [1]),
        ("", b"", {"inputs": ""}),
        ("application/json;charset=utf-8", b'{"inputs": [1]}', {"inputs": [1]}),
        ("text/plain", b"hello", {"inputs": ["hello"]}),
        ("text/csv", b"inputs\na\nb\n", {"inputs": ["a", "b"]}),
        ("text/csv", b"question,n\na,1\n", {"inputs": [{"question": "a", "n": "1"}]}),
        ("application/x-www-form-urlencoded", b"x", {"inputs": "x"}),
        ("audio/wav", b"RIFF", {"inputs": b"RIFF"}),
        ("application/octet-stream", b"raw", {"inputs": b"raw"}),
    ],
)
def test_decode_reads_what_the_content_type_says(content_type: str | None, body: bytes, expected: Any) -> None:
    assert decode(requesting(body), content_type) == expected


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("tensor/ndlist", bytes(to_nd_list([np.eye(2)]))),
        ("tensor/npz", made(Output().add_as_npz([np.eye(2)]))),
        ("application/x-npy", npy(np.eye(2))),
    ],
)
def test_decode_reads_arrays_an_npy_body_too(content_type: str, body: bytes) -> None:
    (array,) = decode(requesting(body, "k"), content_type, "k")["inputs"]
    np.testing.assert_array_equal(array, np.eye(2))


def test_decode_reads_a_csv_of_numbers() -> None:
    array = decode(requesting(b"1,2\n3,4.5\n"), "text/csv", require_csv_headers=False)
    np.testing.assert_array_equal(array, [[1, 2], [3, 4.5]])
    with pytest.raises(ValueError, match="needs a header with one of question, context, inputs"):
        decode(requesting(b"a,b\n1,2\n"), "text/csv")


@pytest.mark.parametrize(
    ("content_type", "prediction", "added_as", "body"),
    [
        (None, {"a": 1}, "application/json", b'{"a":1}'),
        ("application/json", np.arange(2), "application/json", b"[0,1]"),
        ("text/csv", np.array([[1, 2], [3, 4]]), "text/csv", b"1,2\n3,4\n"),
        ("text/csv", np.array([1.5, 2]), "text/csv", b"1.5\n2.0\n"),
        ("text/csv", [{"a": 1, "b": "x,y"}], "text/csv", b'a,b\n1,"x,y"\n'),
    ],
)
def test_encode_writes_what_is_asked_for(content_type: str | None, prediction: Any, added_as: str, body: bytes) -> None:
    output = Output()
    encode(output, prediction, content_type)
    assert (output.get_property("Content-Type"), made(output)) == (added_as, body)


@pytest.mark.parametrize("content_type", ["tensor/ndlist", "tensor/npz", "application/x-npy"])
def test_encode_writes_arrays_that_decode_reads(content_type: str) -> None:
    output = Output()
    encode(output, np.eye(2), content_type)
    (array,) = decode(requesting(made(output)), content_type)["inputs"]
    np.testing.assert_array_equal(array, np.eye(2))
    assert output.get_property("Content-Type") == content_type


def test_arrays_come_through_np_util_alone_or_in_a_list() -> None:
    assert isinstance(to_nd_list(np.eye(2)), bytearray)
    for arrays in (np.eye(2), [np.eye(2)]):
        (array,) = from_nd_list(to_nd_list(arrays))
        np.testing.assert_array_equal(array, np.eye(2))
    assert len(from_nd_list(made(Output().add_as_npz([np.eye(1), np.eye(2)])))) == 2


def test_a_pair_list() -> None:
    pairs, others = PairList(), PairList()
    pairs.add("b", 2)
    pairs.add(key="a", value=1, index=0)
    pairs.add("nothing", None)
    others.add(None, 3)
    pairs.add_all(others)
    assert (pairs.size(), pairs.is_empty(), PairList().is_empty()) == (3, False, True)
    assert (pairs.get_keys(), pairs.get_values()) == (["a", "b", None], [1, 2, 3])
    assert (pairs.keys, pairs.values) == (pairs.get_keys(), pairs.get_values())
    assert (pairs.get("b"), pairs.get("missing"), pairs.key_at(0), pairs.value_at(2)) == (2, None, "a", 3)


def test_a_pair_list_is_made_of_what_there_is() -> None:
    pairs = [("a", 1), ("b", 2)]
    for made in (PairList(["a", "b"], [1, 2]), PairList(pair_list=pairs), PairList(pair_map=dict(pairs))):
        made.add(pair=("c", 3))
        assert (made.get_keys(), made.get_values()) == (["a", "b", "c"], [1, 2, 3])


def test_an_output_is_put_together_in_one_expression() -> None:
    output = Output(201, "Created").set_code(202).set_message("ok").add_property("a", 1).add("x").add("y", key="k")
    assert (output.code, output.message, output.get_property("a"), output.get_properties()) == (202, "ok", 1, {"a": 1})
    assert output.content.get_keys() == [None, "k"]
    assert output.add("z", batch_index=1).add("w", key="n", batch_index=0).content.get_keys()[2:] == [
        "batch_1.",
        "batch_0.n",
    ]


def test_json_of_an_output_takes_what_numpy_and_datetime_have() -> None:
    value = {
        "a": np.float32(1.5),
        "b": np.arange(2),
        "c": date(2024, 1, 2),
        "d": datetime(2024, 1, 2, 3),
        "e": np.bool_(True),
    }
    expected = b'{"a":1.5,"b":[0,1],"c":"2024-01-02","d":"2024-01-02T03:00:00","e":true}'
    assert made(Output().add_as_json(value)) == expected


# --- sessions


@pytest.fixture
def sessions(tmp_path: Path) -> SessionManager:
    return SessionManager({"sessions_path": str(tmp_path / "sessions"), "sessions_expiration": "600"})


def test_a_session_keeps_what_is_put_into_it(sessions: SessionManager) -> None:
    session = sessions.create_session()
    session.put("a/b", {"n": 1})
    found = sessions.get_session(session.session_id)
    assert found is not None
    assert (found.get("a/b"), found.get("missing"), found.get("missing", 3)) == ({"n": 1}, None, 3)
    array = found.get_as_numpy("array", (2, 2), create=True)
    array[:] = 7
    np.testing.assert_array_equal(session.get_as_numpy("array", (2, 2)), np.full((2, 2), 7, np.float32))
    sessions.close_session(session.session_id)
    assert sessions.get_session(session.session_id) is None
    assert not session.remove()
    sessions.close_session(session.session_id)


def test_sessions_expire(tmp_path: Path) -> None:
    sessions = SessionManager({"sessions_path": str(tmp_path / "sessions"), "sessions_expiration": "-1"})
    old = sessions.create_session()
    assert sessions.get_session(old.session_id) is None
    new = sessions.create_session()
    assert not Path(old.files_path).exists()
    assert Path(new.files_path).exists()


@pytest.mark.parametrize("session_id", ["", "../../etc", "0" * 36 + "/../.."])
def test_what_is_no_id_of_a_session_leads_nowhere(sessions: SessionManager, session_id: str) -> None:
    for refuse in (sessions.get_session, sessions.close_session):
        with pytest.raises(ValueError, match="is no session's id"):
            refuse(session_id)
    with pytest.raises(ValueError, match="is no key"):
        sessions.create_session().put("..", 1)
    with pytest.raises(ValueError, match="sessions_s3url is not supported"):
        SessionManager({"sessions_s3url": "s3://bucket"})


def test_sessions_of_somebody_else_are_not_read(sessions: SessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is pickled, and anybody may make directories in shared memory."""
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        SessionManager({"sessions_path": sessions.sessions_path})


def test_sessions_are_one_for_all_workers_of_a_host(sessions: SessionManager) -> None:
    one = sessions.create_session()
    one.put("n", 1)
    assert Session(one.session_id, sessions.sessions_path).get("n") == 1


# --- test_model


def test_an_owner_s_test_runs_the_handler_without_a_server(load: Load, tmp_path: Path) -> None:
    load(handling("return Output().add(inputs.get_batches()[0].get_as_string().upper(), batch_index=0)"))
    trial = sys.modules["djl_python.test_model"]
    handler = trial.TestHandler("model.py", str(tmp_path))
    outputs = handler.inference(trial.create_text_request("text"))
    assert trial.extract_output_as_string(outputs, "batch_0.") == "TEXT"
    assert trial.extract_output_as_bytes(outputs) == b"TEXT"
    assert trial.extract_output_as_string(handler.inference_batch([{"a": 1}, {"a": 2}])) == '{"A":1}'
    arrays = trial.extract_output_as_numpy(Output().add_as_numpy([np.eye(2)]))
    np.testing.assert_array_equal(arrays, [np.eye(2)])
    request = trial.create_npz_request([np.eye(2)], "k")
    np.testing.assert_array_equal(request.get_as_npz("k"), [np.eye(2)])
    np.testing.assert_array_equal(trial.create_numpy_request([np.eye(2)]).get_data(), [np.eye(2)])
    np.testing.assert_array_equal(trial.extract_output_as_npz(Output().add_as_npz([np.eye(1)])), [np.eye(1)])
    assert json_of(answer(load(handling("return Output().add([1])")))) == [1]
