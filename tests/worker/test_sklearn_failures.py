"""What is told and logged of a scikit-learn model that raises or warns."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import CategoricalNB
from sklearn.preprocessing import FunctionTransformer

from mmserve_worker.calls import Handler
from tests.worker.fitted import Failing
from tests.worker.handled import answered, call, loaded, refused


class Doubtful(BaseEstimator):  # type: ignore[misc]
    def predict(self, rows: Any) -> Any:
        warnings.warn(f"row {rows[0][0]}", stacklevel=1)
        return rows[:, 0]


@pytest.mark.parametrize(
    ("error", "status", "error_type", "message"),
    [
        (ValueError("mine\nand more"), 424, "ValueError", "mine"),
        (TypeError("mine"), 424, "TypeError", "mine"),
        (KeyError("x"), 424, "KeyError", "'x'"),
        (RuntimeError(), 424, "RuntimeError", "RuntimeError"),
        (SystemExit(3), 424, "SystemExit", "3"),
        (MemoryError("too much"), 507, "MemoryError", "too much"),
        (RecursionError("deep"), 424, "RecursionError", "deep"),
    ],
)
def test_what_a_model_raises_is_told_and_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    status: int,
    error_type: str,
    message: str,
) -> None:
    assert refused(loaded(tmp_path, Failing(error)), [[1]]) == (status, error_type, message)
    assert "the-model" in caplog.text
    assert "Traceback" in caplog.text


class Wordless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("count", [1, 2])
def test_an_answer_that_cannot_be_written_is_a_failure(tmp_path: Path, count: int) -> None:
    handler = loaded(tmp_path, Failing(answer=[Wordless()] * count), {"batch_size": "2"})
    for reply in handler.answer([call([[1]])] * count):
        assert (reply.status, reply.error_type, reply.error) == (424, "RuntimeError", "no words")


def test_a_body_that_there_is_no_memory_for_is_refused(linear: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any) -> Any:
        raise MemoryError("too much")

    monkeypatch.setattr("mmserve_worker.codecs.decode", decode)
    assert refused(linear, [[1, 2, 3]]) == (507, "MemoryError", "too much")


def test_errors_of_the_owner_s_functions_are_not_the_caller_s(tmp_path: Path) -> None:
    handler = loaded(tmp_path, FunctionTransformer(not_today))
    assert refused(handler, [[1]]) == (424, "ValueError", "not today")


def not_today(rows: Any) -> Any:
    raise ValueError("not today")


def test_a_model_that_was_never_fitted_is_not_the_caller_s_fault(tmp_path: Path) -> None:
    assert refused(loaded(tmp_path, LinearRegression()), [[1]])[:2] == (424, "NotFittedError")


def test_other_errors_inside_scikit_learn_are_failures(tmp_path: Path) -> None:
    handler = loaded(tmp_path, CategoricalNB().fit([[0], [1]], [0, 1]))
    assert refused(handler, [[7]])[:2] == (424, "IndexError")


def test_a_warning_is_logged_once_however_often_it_is_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        handler = loaded(tmp_path, Doubtful())
        for number in range(5):
            answered(handler, [[number]])
    assert [record.getMessage() for record in caplog.records] == ["model the-model: UserWarning: row 0"]
