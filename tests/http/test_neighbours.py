"""Requests that are answered together do not know of each other: every caller gets exactly its own rows."""

from __future__ import annotations

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from tests import models_for_tests as models
from tests.http.errors import assert_error
from tests.http.raw import RawClient, post
from tests.servers import Server

CLIENTS = 16
GOOD = "[[%f]]"
BAD = {
    "[[1.0": 400,
    "[[1.0, 2.0]]": 400,
    '[["a word"]]': 400,
    "[[1.0], [2.0, 3.0]]": 400,
    '{"rows": [[1.0]]}': 400,
    "": 400,
}


def test_a_bad_request_leaves_its_neighbours_unharmed(shared_server: Server) -> None:
    """All connections send before any is read, so that the worker finds many requests waiting."""
    bodies: list[tuple[str, Any]] = [(GOOD % number, [2.0 * number + 1.0]) for number in range(300)]
    bodies += list(BAD.items()) * 30
    random.Random(0).shuffle(bodies)
    shared_server.predictions("linear", [[0.0]])
    pids = shared_server.worker_pids("linear")
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(shared_server)) for _ in range(40)]
        for start in range(0, len(bodies), len(clients)):
            pairs = list(zip(clients, bodies[start : start + len(clients)], strict=True))
            for client, (body, _) in pairs:
                client.send(post("/predictions/linear", body.encode()))
            for client, (body, expected) in pairs:
                response = client.response()
                if isinstance(expected, int):
                    assert_error(response, expected, "BadRequestException")
                else:
                    assert response.json == {"predictions": pytest.approx(expected)}, body
    assert shared_server.worker_pids("linear") == pids


def _random_request(generator: np.random.Generator) -> tuple[str, Any, str, str]:
    model = str(generator.choice(["linear", "classifier", "forest", "identity"]))
    width = {"linear": 1, "classifier": 2, "forest": 4, "identity": int(generator.integers(1, 6))}[model]
    methods = {"classifier": ["predict", "predict_proba", "decision_function"], "forest": ["predict", "predict_proba"]}
    method = str(generator.choice(methods.get(model, [""])))
    dtype = str(generator.choice(["<f8", "<f4", "<i8"]))
    rows = (generator.normal(size=(int(generator.integers(1, 20)), width)) * 10).astype(dtype)
    return model, rows, method, str(generator.choice(["application/json", "application/x-npy"]))


def test_every_caller_gets_exactly_its_own_rows(shared_server: Server) -> None:
    oracle = {
        "linear": models.linear(),
        "classifier": models.classifier(),
        "forest": models.forest(),
        "identity": models.identity(),
    }
    generator = np.random.default_rng(1)
    requests = [_random_request(generator) for _ in range(400)]

    def ask(request: tuple[str, Any, str, str]) -> Any:
        model, rows, method, content_type = request
        if content_type == "application/json":
            body = json.dumps(rows.tolist()).encode()
        else:
            file = io.BytesIO()
            np.save(file, rows)
            body = file.getvalue()
        response = shared_server.client.post(
            f"/predictions/{model}",
            params={"method": method} if method else {},
            content=body,
            headers={"content-type": content_type},
        )
        assert response.status_code == 200, response.text
        return response.json()["predictions"]

    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = list(threads.map(ask, requests))
    for (name, rows, method, _), answer in zip(requests, answers, strict=True):
        called = method or ("transform" if name == "identity" else "predict")
        expected = getattr(oracle[name], called)(rows)
        if expected.dtype.kind in "OU":
            assert answer == expected.tolist()
        else:
            np.testing.assert_allclose(answer, expected, rtol=1e-5)
