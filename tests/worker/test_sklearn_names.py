"""What callers send to models that know their columns by name, or that take texts."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mmserve_worker.calls import Handler
from mmserve_worker.handlers import anatomy
from mmserve_worker.handlers.errors import LoadError
from mmserve_worker.handlers.features import Features
from tests.worker.fitted import BAD_REQUEST
from tests.worker.handled import answered, loaded, refused


class Labels(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers what it is given."""

    def predict(self, rows: Any) -> Any:
        return [f"{type(row[0]).__name__} {row[0]}" for row in rows]


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"age": [20, 30, 40, 50], "city": ["Oslo", "Rome", "Oslo", "Bonn"], "size": [1.5, 2.5, 3.5, 9.0]}
    )


def by_name() -> Any:
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "size"]), ("texts", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    )
    return make_pipeline(columns, LinearRegression()).fit(frame(), [1.0, 2.0, 3.0, 5.0])


@pytest.mark.parametrize("rows", [[[35, "Oslo", 2.0], [21, "Nowhere", 1]], [[35.5, None, 2.0]], [[20, None, 1]]])
def test_columns_selected_by_name_take_rows_and_records(tmp_path: Path, rows: list[list[Any]]) -> None:
    model = by_name()
    handler = loaded(tmp_path, model)
    expected = model.predict(pd.DataFrame(rows, columns=["age", "city", "size"])).tolist()
    assert answered(handler, rows) == expected
    records = [dict(zip(("size", "city", "age"), reversed(row), strict=True)) for row in rows]
    for body in (records, {"instances": records}, {"inputs": records}):
        assert answered(handler, body) == expected


def test_csv_takes_its_columns_from_the_header(tmp_path: Path) -> None:
    handler = loaded(tmp_path, by_name())
    expected = answered(handler, [[35, "Oslo", 2.0], [40, "Rome", 3.0]])
    for body in (
        b"35,Oslo,2.0\n40,Rome,3.0",
        b"age,city,size\n35,Oslo,2.0\n40,Rome,3.0",
        b"size,city,age\n2,Oslo,35\n3,Rome,40",
    ):
        assert answered(handler, body, content_type="text/csv") == expected


def test_a_callable_selector_is_a_selection_by_name(tmp_path: Path) -> None:
    selector = make_column_selector(dtype_include=np.number)
    columns = ColumnTransformer([("numbers", StandardScaler(), selector)], remainder="drop")
    model = make_pipeline(columns, Ridge()).fit(frame(), [1.0, 2.0, 3.0, 4.0])
    expected = model.predict(frame()).tolist()
    assert answered(loaded(tmp_path, model), frame().to_dict("records")) == expected


def test_code_of_the_owner_s_that_was_fitted_on_a_frame_gets_one(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(add_columns), LinearRegression()).fit(
        frame()[["age", "size"]], [1, 2, 3, 4]
    )
    expected = model.predict(frame()[["age", "size"]]).tolist()
    assert answered(loaded(tmp_path, model), frame()[["age", "size"]].to_numpy().tolist()) == expected


def add_columns(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(both=table["age"] * table["size"])


def test_a_model_with_names_takes_plain_rows_without_a_warning(tmp_path: Path) -> None:
    numbers = frame()[["age", "size"]]
    model = LinearRegression().fit(numbers, [1.0, 2.0, 3.0, 4.0])
    handler = loaded(tmp_path, model)
    assert answered(handler, numbers.to_numpy().tolist()) == model.predict(numbers).tolist()
    assert answered(handler, [{"size": 1.5, "age": 20}]) == model.predict(numbers[:1]).tolist()


def test_a_mixed_table_reaches_an_encoder_with_the_types_of_its_columns(tmp_path: Path) -> None:
    encoder = OneHotEncoder(sparse_output=False).fit(frame())
    handler = loaded(tmp_path, encoder)
    table = pd.DataFrame([[20, "Rome", 9.0]], columns=list(frame().columns))
    assert answered(handler, [[20, "Rome", 9.0]]) == encoder.transform(table).tolist()


def test_missing_and_unknown_names_are_named(tmp_path: Path) -> None:
    handler = loaded(tmp_path, by_name())
    assert refused(handler, [{"age": 3, "city": "Oslo"}]) == (*BAD_REQUEST, 'missing features: "size"')
    record = {"age": 3, "city": "Oslo", "size": 1, "colour": "red"}
    status, _, message = refused(handler, [record])
    assert status == 400
    assert '"colour"' in message
    assert refused(handler, b"age,age,size\n1,2,3", content_type="text/csv")[0] == 400


def test_records_are_no_use_to_a_model_without_names(linear: Handler) -> None:
    status, _, message = refused(linear, [{"a": 1, "b": 2, "c": 3}])
    assert status == 400
    assert "no feature names" in message


def test_names_of_a_csv_header_are_left_out_for_a_model_without_names(linear: Handler) -> None:
    assert answered(linear, b"a,b,c\n1,2,3", content_type="text/csv") == answered(linear, [[1, 2, 3]])


# --- texts


def test_every_string_is_a_sample_to_a_text_model(tmp_path: Path) -> None:
    texts = ["good film", "bad film", "good", "bad"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    handler = loaded(tmp_path, model)
    expected = model.predict(texts[:3]).tolist()
    assert answered(handler, texts[:3]) == expected
    assert answered(handler, {"instances": texts[:3]}) == expected
    assert answered(handler, [[text] for text in texts[:3]]) == expected
    assert answered(handler, b"good film\nbad film\ngood\n", content_type="text/csv") == expected
    assert answered(handler, b'"good film"\n"bad film"\n"good"', content_type="application/jsonlines") == expected
    assert refused(handler, ["good", None])[:2] == BAD_REQUEST
    file = io.BytesIO()
    np.save(file, np.array(texts[:3]))
    assert answered(handler, file.getvalue(), content_type="application/x-npy") == expected


def test_strings_are_one_row_to_a_model_with_features(tmp_path: Path) -> None:
    handler = loaded(tmp_path, OneHotEncoder().fit([["a", "x"], ["b", "y"]]))
    assert answered(handler, ["a", "y"]) == [[1, 0, 0, 1]]


def test_strings_in_a_numeric_column_of_a_frame_are_refused(tmp_path: Path) -> None:
    assert refused(loaded(tmp_path, by_name()), [["old", "Oslo", 1.0]])[:2] == BAD_REQUEST


def test_values_keep_their_types_on_the_way_to_the_model(tmp_path: Path) -> None:
    handler = loaded(tmp_path, Labels())
    assert answered(handler, [["a", 1], [2, 3], [2.5, 3], [True, 1]]) == ["str a", "int 2", "float 2.5", "bool True"]


def test_a_model_that_needs_data_frames_says_so_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = by_name()
    features = Features.of_estimator(model, list(anatomy.parts(model)))
    assert features.names == ("age", "city", "size")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LoadError, match=r"^Pipeline looks up columns by their names, which needs pandas: "):
        Features.of_estimator(model, list(anatomy.parts(model)))
