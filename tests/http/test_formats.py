"""Each request type and each answer type once, from a client's bytes to a client's bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.servers import Server

CLASSIFIED = [[3.0, 3.0], [-3.0, -3.0]]


def _npy(rows: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(rows))
    return file.getvalue()


def _npz(rows: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, np.asarray(rows))
    return file.getvalue()


REQUESTS = [
    ("", b"[[1.0], [2.0]]"),
    ("application/json", b"[[1.0], [2.0]]"),
    ("application/json; charset=utf-8", b'{"instances": [[1.0], [2.0]]}'),
    ("application/json", b'{"inputs": [[1.0], [2.0]]}'),
    ("text/csv", b"1.0\n2.0\n"),
    ("text/csv", b"x\r\n1.0\r\n2.0\r\n"),
    ("application/jsonlines", b"[1.0]\n[2.0]\n"),
    ("application/x-jsonlines", b"[1.0]\n[2.0]\n"),
    ("application/x-npy", _npy([[1.0], [2.0]])),
    ("application/x-npz", _npz([[1.0], [2.0]])),
]


@pytest.mark.parametrize(("content_type", "body"), REQUESTS)
def test_rows_are_read_from(shared_server: Server, content_type: str, body: bytes) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = shared_server.client.post("/predictions/linear", content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert response.json() == {"predictions": [3.0, 5.0]}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'[{"b": 1.0, "a": 3.0}, {"b": 2.0, "a": 2.0}]'),
        ("application/jsonlines", b'{"b": 1.0, "a": 3.0}\n{"b": 2.0, "a": 2.0}\n'),
        ("text/csv", b"b,a\n1.0,3.0\n2.0,2.0\n"),
    ],
)
def test_a_model_that_knows_its_features_by_name_is_asked_by_name(
    shared_server: Server, content_type: str, body: bytes
) -> None:
    response = shared_server.client.post("/predictions/named", content=body, headers={"content-type": content_type})
    assert response.json() == {"predictions": [2.0, 0.0]}


ANSWERS: dict[str, Callable[[bytes], Any]] = {
    "application/json": lambda body: json.loads(body)["predictions"],
    "text/csv": lambda body: [float(line) for line in body.decode().split()],
    "application/jsonlines": lambda body: [json.loads(line) for line in body.splitlines()],
    "application/x-npy": lambda body: np.load(io.BytesIO(body), allow_pickle=False).tolist(),
}


@pytest.mark.parametrize("accept", ANSWERS)
def test_answers_are_written_as(shared_server: Server, accept: str) -> None:
    response = shared_server.predict("linear", [[1.0], [2.0]], headers={"accept": accept})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == accept
    assert ANSWERS[accept](response.content) == [3.0, 5.0]


def test_a_model_can_be_asked_for_another_of_its_methods(shared_server: Server) -> None:
    asked = {"params": {"method": "predict_proba"}}
    probabilities = np.array(shared_server.predictions("classifier", CLASSIFIED, **asked))
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert probabilities[0, 1] > 0.9
    decisions = shared_server.predictions("classifier", CLASSIFIED, params={"method": "decision_function"})
    assert decisions[0] > 0 > decisions[1]
    assert shared_server.predictions("classifier", CLASSIFIED) == ["yes", "no"]


def test_a_large_array_comes_back_as_it_was_sent(shared_server: Server) -> None:
    rows = np.random.default_rng(0).normal(size=(50_000, 40))
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    response = shared_server.client.post("/predictions/identity", content=_npy(rows), headers=headers)
    assert response.status_code == 200, response.text[:500]
    np.testing.assert_array_equal(np.load(io.BytesIO(response.content), allow_pickle=False), rows)
