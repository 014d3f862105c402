"""Bodies as SageMaker's containers decode and encode them, where the model's code leaves that to its container.

Numbers that come as text are float32 and one row may stand alone, for scikit-learn as an array and for an XGBoost
Booster as a DMatrix; an answer in JSON is the plain list. Unlike there an npy body is never unpickled, and a CSV header
is left out.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mmserve_worker import codecs
from mmserve_worker.calls import Buffer, Reply
from mmserve_worker.codecs import json_text, media_types
from mmserve_worker.codecs.refusals import bad_request, not_acceptable, quoted
from mmserve_worker.codecs.rows import Array
from mmserve_worker.handlers import results

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
# In the order in which they are chosen where the caller has no preference.
_ANSWERS = (JSON, CSV, NPY, "application/jsonlines")
_LIBSVM = ("text/libsvm", "text/x-libsvm")
_NUMBERS = "biuf"


def decode(body: str | Buffer, content_type: str) -> Array:
    """The values of a body, to be written to as their owner likes."""
    rows = codecs.decode(body.encode() if isinstance(body, str) else body, content_type)
    if rows.names:
        raise bad_request("records are sent to a model without an input_fn of its own: send rows as arrays")
    return np.array(rows.values)


def model_input(body: str | Buffer, content_type: str, model: Any) -> Any:
    media_type = media_types.split(content_type)[0]
    if media_type in _LIBSVM:
        return libsvm_to_dmatrix(body)
    values = decode(body, content_type)
    if media_type != NPY and values.dtype.kind in _NUMBERS:
        values = values.astype(np.float32)
    values = values.reshape(1, -1) if values.ndim == 1 else values
    return _matrix(values) if is_booster(model) else values


def is_booster(model: Any) -> bool:
    return type(model).__name__ == "Booster" and type(model).__module__.partition(".")[0] == "xgboost"


def predict(data: Any, model: Any) -> Any:
    if is_booster(model):
        # The columns of a request have no names.
        return model.predict(data, validate_features=False)
    return model.predict(data)


def encode(prediction: Any, accept: str) -> str | bytes:
    body = encoded(prediction, accept).body
    joined = b"".join(body) if isinstance(body, tuple) else bytes(body)
    return joined if media_types.preferred(accept, _ANSWERS) == NPY else joined.decode()


def encoded(prediction: Any, accept: str) -> Reply:
    chosen = media_types.preferred(accept, _ANSWERS)
    if chosen is None:
        raise not_acceptable(f"cannot answer {quoted(accept)}: there is {', '.join(_ANSWERS)}")
    if chosen == JSON:
        return Reply(200, JSON, json_text.dumps(_plain(prediction)).encode())
    return codecs.writer(chosen)(results.answer_of(prediction, "predict"))


def answerable(accept: str) -> str:
    """What an answer is called that was written for an Accept header by the model's own code."""
    media_type = accept.partition(";")[0].strip()
    if "," not in accept and "*" not in media_type:
        return media_type
    return media_types.preferred(accept, _ANSWERS) or JSON


def _plain(prediction: Any) -> Any:
    if hasattr(prediction, "toarray") or hasattr(prediction, "to_numpy"):
        prediction = results.dense(prediction)
    return prediction.tolist() if hasattr(prediction, "tolist") else prediction


def csv_to_dmatrix(body: str | Buffer, dtype: Any = None) -> Any:
    values = decode(body, CSV)
    return _matrix(values.reshape(1, -1) if values.ndim == 1 else values, dtype)


def _matrix(values: Array, dtype: Any = None) -> Any:
    import xgboost  # type: ignore[import-not-found,unused-ignore]

    return xgboost.DMatrix(values if dtype is None else values.astype(dtype))


def libsvm_to_dmatrix(body: str | Buffer) -> Any:
    """Of lines `label index:value ...`, the label being optional; indices begin with 0, as XGBoost reads them."""
    import xgboost
    from sklearn.datasets import load_svmlight_file

    text = body if isinstance(body, str) else str(body, "utf-8", "replace")
    lines = [line if ":" not in line.split()[0] else f"0 {line}" for line in text.splitlines() if line.strip()]
    try:
        rows, _ = load_svmlight_file(io.BytesIO("\n".join(lines).encode()), zero_based=True)
    except ValueError as error:
        raise bad_request(f"not LIBSVM: {error}") from None
    return xgboost.DMatrix(rows)
