"""Scripts in the shape of AWS's examples, with all that they import from SageMaker's containers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from mmserve_worker.calls import Reply
from tests.worker.coded import Coded, answer, body_of, said

# A featurizer at the head of an inference pipeline.
FEATURIZER = """
    import argparse, json, os
    from io import StringIO
    import joblib
    import pandas as pd
    from sagemaker_containers.beta.framework import (
        content_types, encoders, env, modules, transformer, worker)

    def input_fn(input_data, content_type):
        if content_type == "text/csv":
            return pd.read_csv(StringIO(input_data), header=None)
        raise ValueError("{} not supported by script!".format(content_type))

    def output_fn(prediction, accept):
        if accept == "application/json":
            instances = [{"features": row} for row in prediction.tolist()]
            return worker.Response(json.dumps({"instances": instances}), mimetype=accept)
        elif accept == content_types.CSV:
            return worker.Response(encoders.encode(prediction, accept), mimetype=accept)
        raise RuntimeError("{} accept type is not supported by this script.".format(accept))

    def predict_fn(input_data, model):
        return model.transform(input_data.to_numpy())

    def model_fn(model_dir):
        return joblib.load(os.path.join(model_dir, "model.joblib"))
"""
XGBOOST = """
    import os
    import xgboost
    from sagemaker_xgboost_container import encoder as xgb_encoders

    def input_fn(request_body, request_content_type):
        if request_content_type == "text/libsvm":
            return xgb_encoders.libsvm_to_dmatrix(request_body)
        if request_content_type == "text/csv":
            return xgb_encoders.csv_to_dmatrix(request_body)
        raise ValueError("Content type {} is not supported.".format(request_content_type))

    def model_fn(model_dir):
        booster = xgboost.Booster()
        booster.load_model(os.path.join(model_dir, "xgboost-model.json"))
        return booster

    def predict_fn(input_data, model):
        return model.predict(input_data)

    def output_fn(predictions, content_type):
        return ",".join(str(x) for x in predictions)
"""
TOOLKIT = """
    from sagemaker_inference import content_types, decoder, encoder, errors

    def model_fn(model_dir):
        return 3

    def input_fn(data, content_type):
        if content_type not in (content_types.JSON, content_types.CSV, content_types.NPY):
            raise errors.UnsupportedFormatError(content_type)
        return decoder.decode(data, content_type)

    def predict_fn(data, model):
        return data * model

    def output_fn(prediction, accept):
        return encoder.encode(prediction, accept)
"""


def test_a_featurizer_of_an_inference_pipeline(coded: Coded) -> None:
    scaler = StandardScaler().fit([[0.0, 0.0], [2.0, 4.0]])
    joblib.dump(scaler, coded.directory / "model.joblib")
    handler = coded.load({"inference.py": FEATURIZER})
    body = b"1,2\n2,4\n"
    assert answer(handler, body, content_type="text/csv", accept="text/csv") == Reply(
        200, "text/csv", b"0.0,0.0\n1.0,1.0\n"
    )
    reply = answer(handler, body, content_type="text/csv")
    assert said(reply) == {"instances": [{"features": [0.0, 0.0]}, {"features": [1.0, 1.0]}]}
    assert answer(handler, body, content_type="text/csv", accept="image/png").status == 424


@pytest.fixture
def booster(coded: Coded) -> Any:
    """Saved as `xgboost-model.json`."""
    xgboost = pytest.importorskip("xgboost")
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    trained = xgboost.train({"nthread": 1, "max_depth": 2}, xgboost.DMatrix(rows, rows.sum(axis=1)), 5)
    trained.save_model(coded.directory / "xgboost-model.json")
    return trained


def predicted(booster: Any, rows: list[list[float]]) -> list[float]:
    import xgboost

    values: list[float] = booster.predict(xgboost.DMatrix(np.array(rows, np.float32))).tolist()
    return values


def test_the_xgboost_container_s_encoders(coded: Coded, booster: Any) -> None:
    handler = coded.load({"inference.py": XGBOOST})
    expected = [str(np.float32(value)) for value in predicted(booster, [[4, 5], [30, 31]])]
    for body, content_type in [
        (b"4,5\n30,31\n", "text/csv"),
        (b"1 0:4 1:5\n0:30 1:31\n", "text/libsvm"),
    ]:
        assert body_of(answer(handler, body, content_type=content_type)).decode().split(",") == expected
    assert answer(handler, b"0:x", content_type="text/libsvm").status == 400


def test_the_xgboost_container_s_defaults(coded: Coded, booster: Any) -> None:
    script = XGBOOST[XGBOOST.index("    def model_fn") : XGBOOST.index("    def predict_fn")]
    handler = coded.load({"inference.py": "    import os, xgboost\n" + script})
    expected = pytest.approx(predicted(booster, [[4, 5], [30, 31]]))
    file = io.BytesIO()
    np.save(file, np.array([[4, 5], [30, 31]]))
    for body, content_type in [
        (b"4,5\n30,31\n", "text/csv"),
        (b"[[4, 5], [30, 31]]", "application/json"),
        (b"0:4 1:5\n0:30 1:31", "text/x-libsvm"),
        (file.getvalue(), "application/x-npy"),
    ]:
        assert said(answer(handler, body, content_type=content_type)) == expected


@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/x-npy"])
def test_the_toolkit_s_decoder_and_encoder(coded: Coded, accept: str) -> None:
    handler = coded.load({"inference.py": TOOLKIT})
    reply = answer(handler, b"[[1, 2]]", accept=accept)
    file = io.BytesIO()
    np.save(file, np.array([[3, 6]]))
    expected = {"application/json": b"[[3, 6]]", "text/csv": b"3,6\n", "application/x-npy": file.getvalue()}
    assert (reply.content_type, reply.body) == (accept, expected[accept])
    refused = answer(handler, b"x", content_type="text/html")
    assert (refused.status, refused.error_type) == (424, "UnsupportedFormatError")


def test_a_model_may_bring_such_a_package_itself(coded: Coded, tmp_path: Path) -> None:
    source = "from sagemaker_inference import OWN\ndef model_fn(d): pass\ndef predict_fn(d, m): return [OWN]"
    handler = coded.load({"sagemaker_inference/__init__.py": "OWN = 1", "inference.py": source})
    assert answer(handler).body == b"[1]"
