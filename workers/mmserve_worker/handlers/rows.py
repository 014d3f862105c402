"""Models that are a file alone: what is waiting is answered by as few calls as are right.

calls ──► decode, check ──► alike ones joined ──► one call of the model ──► each caller's rows ──► encode
               │                                        │ raised, or not a result for each row └─ refused:
               answered alone               └──► each one alone, so that only the bad one fails
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmserve_worker import codecs
from mmserve_worker.calls import Call, Handler, ModelSpec, Reply
from mmserve_worker.codecs.answers import Answer
from mmserve_worker.codecs.refusals import bad_request, quoted
from mmserve_worker.codecs.rows import Array, Columns
from mmserve_worker.handlers import features, libraries, model_code, model_files, results, warned
from mmserve_worker.handlers.errors import RAISED_BY_MODELS, LoadError, failure
from mmserve_worker.handlers.files import model_file
from mmserve_worker.handlers.served import METHODS


def load(spec: ModelSpec) -> Handler:
    directory = Path(spec.directory)
    model_code.make_importable(directory)
    model = model_files.load(model_file(directory, spec.options), spec.name, spec.options)
    warned.log_each_once(spec.name)
    return RowsHandler(spec.name, model, spec.options)


@dataclass(slots=True)
class _Job:
    """A call that can be answered: what goes into which method, and how its answer is written."""

    method: str
    columns: Columns
    rows: int
    write: codecs.Writer


class RowsHandler:
    def __init__(self, name: str, model: Any, options: Mapping[str, str]) -> None:
        served = libraries.served(model, options)
        self._name = name
        self._inputs = served.inputs
        self._methods = dict(served.methods)
        if not self._methods:
            raise LoadError(f"{served.kind} is no model: it has none of {', '.join(METHODS)}")
        self._default = options.get("option.method") or next(iter(self._methods))
        if self._default not in self._methods:
            raise LoadError(f"option.method is {self._default}: {self._what_there_is()}")
        self._can_join = served.can_join

    def answer(self, calls: Sequence[Call]) -> list[Reply]:
        if len(calls) == 1:
            job = self._job(calls[0])
            return [job if isinstance(job, Reply) else self._alone(job)]
        jobs = [self._job(call) for call in calls]
        groups = self._groups(jobs)
        if len(groups) == 1 and len(groups[0]) == len(calls):
            return self._together(groups[0])
        replies = {id(job): reply for group in groups for job, reply in zip(group, self._together(group), strict=True)}
        return [replies[id(job)] if isinstance(job, _Job) else job for job in jobs]

    def _groups(self, jobs: list[_Job | Reply]) -> list[list[_Job]]:
        """The jobs that one call may answer, in their order."""
        groups: dict[object, list[_Job]] = {}
        for index, job in enumerate(jobs):
            if isinstance(job, _Job):
                alike = (job.method, features.signature(job.columns)) if self._can_join and job.rows else index
                groups.setdefault(alike, []).append(job)
        return list(groups.values())

    def _job(self, call: Call) -> _Job | Reply:
        try:
            method = call.method or self._default
            if method not in self._methods:
                raise bad_request(f"no method {quoted(method)}: {self._what_there_is()}")
            write = codecs.writer(call.accept)
            columns = self._inputs.read(call.body, call.content_type)
            return _Job(method, columns, len(columns[0]), write)
        except RAISED_BY_MODELS as error:
            # No code of the model's, but a body may be more than there is memory for.
            return failure(error, self._name)

    def _what_there_is(self) -> str:
        return f"this model has {', '.join(self._methods)}"

    def _together(self, jobs: list[_Job]) -> list[Reply]:
        if len(jobs) == 1:
            return [self._alone(jobs[0])]
        try:
            answer = self._call(jobs[0].method, features.joined([job.columns for job in jobs]))
        except RAISED_BY_MODELS:
            # One of them is to blame, and only it may fail.
            return [self._alone(job) for job in jobs]
        if not results.has_rows(answer, sum(job.rows for job in jobs)):
            return [self._alone(job) for job in jobs]
        if all([codecs.is_json(job.write) for job in jobs]):
            written = codecs.json_replies(answer, [job.rows for job in jobs])
            if written is not None:
                return written
        replies = []
        start = 0
        for job in jobs:
            replies.append(self._written(job, results.rows_between(answer, start, start + job.rows)))
            start += job.rows
        return replies

    def _alone(self, job: _Job) -> Reply:
        if not job.rows:
            return self._written(job, np.empty(0))
        try:
            answer = self._call(job.method, features.joined([job.columns]))
        except RAISED_BY_MODELS as error:
            return failure(error, self._name)
        if job.rows == 1 and not isinstance(answer, list) and answer.ndim == 1 and len(answer) != 1:
            # SparsePCA drops the rows' axis where there is one row.
            answer = answer.reshape(1, -1)
        return self._written(job, answer)

    def _call(self, method: str, columns: list[Array]) -> Answer:
        rows = self._inputs.assembled(columns)
        try:
            result = self._methods[method](rows)
        except ValueError as error:
            # Bodies are read in place and must not be written to, which a model with copy=False may want to.
            if "read-only" not in str(error):
                raise
            result = self._methods[method](self._inputs.assembled([column.copy() for column in columns]))
        return results.answer_of(result, method)

    def _written(self, job: _Job, answer: Answer) -> Reply:
        try:
            return job.write(answer)
        except RAISED_BY_MODELS as error:
            # What a model answers may be objects of its own, which are asked for their text.
            return failure(error, self._name)
